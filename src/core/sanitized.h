/*
 * Which checker this is built for, and what follows for the sizes of things.
 * What the checkers must be told is in sanitize.h.
 */
#ifndef GREEN_SANITIZED_H
#define GREEN_SANITIZED_H

#if defined __SANITIZE_ADDRESS__
#define SANITIZE_ADDRESS 1
#elif defined __has_feature
#if __has_feature(address_sanitizer)
#define SANITIZE_ADDRESS 1
#endif
#endif

/* Must switches be announced? And how many times larger are frames? */
#ifdef SANITIZE_ADDRESS
enum { SANITIZE_SWITCHES = 1, SANITIZE_FRAMES = 8 };
#else
enum { SANITIZE_SWITCHES = 0, SANITIZE_FRAMES = 1 };
#endif

#endif
