# greenlua. `make help` tells what there is.

# ---- settings ----

PREFIX  = /usr/local
DESTDIR =
BUILD   = build
CC      = gcc
CFLAGS  = -O2 -g
LDFLAGS =
LUA     =          # `system`: link Debian's liblua5.4, whose __concat is broken (D13)
LUA_SRC =          # a folder or tarball of Lua 5.4.7, instead of fetching it
CONTEXT =          # `ucontext`: switch without assembly; chosen by itself on other machines
SANITIZE =         # for -fsanitize=: `address,undefined`, `thread`, ...
DEBUG   =          # `1`: assertions on; they are on in sanitizer builds as well

# ---- what is built from what ----

ROOMS  = core hub io lua host
LUA_MODULES := $(shell find lua -name '*.lua' -not -path 'lua/green/meta/*' 2>/dev/null | sort)
C_TESTS     := $(basename $(notdir $(wildcard spec/c/*_test.c)))

CONTEXT_KIND := $(strip $(CONTEXT))
ifeq ($(CONTEXT_KIND),)
  CONTEXT_KIND := $(if $(filter x86_64,$(shell uname -m)),x86_64,ucontext)
endif
CONTEXT_SRC := $(wildcard src/core/context_$(CONTEXT_KIND).[cS])

comma := ,
VARIANT := $(if $(filter 1,$(DEBUG)),-debug)$(if $(strip $(CONTEXT)),-$(CONTEXT_KIND))
VARIANT := $(VARIANT)$(if $(filter system,$(LUA)),-luasystem)
VARIANT := $(VARIANT)$(if $(strip $(SANITIZE)),-$(subst address-undefined,asan,$(subst $(comma),-,$(strip $(SANITIZE)))))
# Variants do not mix: build/, build/debug/, build/asan/, ...
OUT := $(BUILD)$(if $(VARIANT),/$(VARIANT:-%=%))

sources = $(filter-out src/core/context_%,$(wildcard src/$1/*.c)) $(if $(filter core,$1),$(CONTEXT_SRC))
objects = $(patsubst src/%,$(OUT)/obj/%.o,$(call sources,$1))
OBJECTS := $(foreach room,$(ROOMS),$(call objects,$(room)))
EMBEDDED := $(OUT)/obj/host/modules.c

WARNINGS = -Wall -Wextra -Werror
ALL_CFLAGS := -std=gnu11 $(CFLAGS) $(WARNINGS) -fvisibility=hidden -pthread -MMD -MP
ifneq ($(strip $(SANITIZE)),)
  SANITIZE_FLAGS := -fsanitize=$(strip $(SANITIZE)) -fno-omit-frame-pointer -fno-sanitize-recover=all
else ifneq ($(DEBUG),1)
  ALL_CFLAGS += -DNDEBUG
endif
ALL_CFLAGS += $(SANITIZE_FLAGS)

# Lua: upstream's, unless LUA=system. Scripts see what Debian's lua5.4 shows
# them: the same search paths, so that Debian's C modules are found, and the
# same functions kept from 5.3. What asks the compiler is expanded late (`=`):
# where `make demo` first has to install one, there is none when this is read.
LUA_DIR := $(BUILD)/lua-src
ifeq ($(filter system,$(LUA)),)
  LUA_INC  := $(LUA_DIR)
  LUA_LIB  := $(OUT)/lua/liblua.a
else
  LUA_INC  := /usr/include/lua5.4
  LUA_LIB  := -l:liblua5.4.a
endif
MULTIARCH   = $(shell $(CC) -print-multiarch 2>/dev/null)
LUA_SHARE  := $(foreach d,/usr/local/share /usr/local/lib /usr/share,$d/lua/5.4/?.lua;$d/lua/5.4/?/init.lua;)
LUA_SO      = $(foreach d,/usr/local/lib /usr/lib/$(MULTIARCH) /usr/lib,$d/lua/5.4/?.so;)
space := $() $()
LUA_CFLAGS  = -std=gnu11 $(CFLAGS) -w -DLUA_USE_LINUX -DLUA_COMPAT_5_3 $(SANITIZE_FLAGS) \
  -DLUA_PATH_DEFAULT='"$(subst $(space),,$(LUA_SHARE))./?.lua;./?/init.lua"' \
  -DLUA_CPATH_DEFAULT='"$(subst $(space),,$(LUA_SO))/usr/local/lib/lua/5.4/loadall.so;./?.so"'

LIBS := -l:libev.a -l:libcares.a -lm -ldl

# ---- targets ----

.PHONY: all demo test ctests install lint bench asan deps rock check-curl install-rock clean help FORCE
.DELETE_ON_ERROR:
.SECONDARY:

all: $(OUT)/greenlua ## build build/greenlua (the default)

demo: deps all ## fetch 1,000 photos concurrently from a local server
	tools/demo $(OUT)/greenlua

test: deps ## all specs and C tests, also under sanitizers and in stock Lua, and lint
	tools/deps test lint
	tools/test

install: all ## to PREFIX (/usr/local) under DESTDIR
	install -D -m 755 $(OUT)/greenlua $(DESTDIR)$(PREFIX)/bin/greenlua
	install -D -m 644 src/greenlua.h $(DESTDIR)$(PREFIX)/include/greenlua.h

lint: all ## luacheck, order of rooms, exported names, sizes, doc blocks
	tools/deps lint
	tools/lint $(OUT)

bench: all $(OUT)/libgreen.a ## the figures: `name metric value unit`
	tools/deps bench
	CC='$(CC)' bench/run $(OUT)

asan: ## build build/asan/greenlua
	$(MAKE) SANITIZE=address,undefined all

deps: ## install the Debian packages that building needs
	tools/deps build

clean: ## remove build/
	rm -rf $(BUILD)

help: ## this list
	@sed -n 's/^\([a-z]*\):.*## /  make \1\t/p' Makefile | expand -t 18
	@echo 'Settings (make NAME=value): PREFIX DESTDIR BUILD CC CFLAGS LUA LUA_SRC CONTEXT SANITIZE DEBUG'

# ---- the host ----

# Only Lua's API and greenlua.h are seen from outside, so that our names never
# capture those of a loaded C module (STYLE).
$(OUT)/greenlua: $(OBJECTS) $(EMBEDDED:.c=.c.o) $(filter %/liblua.a,$(LUA_LIB)) $(OUT)/exports
	$(CC) $(CFLAGS) $(SANITIZE_FLAGS) $(LDFLAGS) -pthread -o $@ $(filter %.o,$^) \
	  -Wl,--dynamic-list=$(OUT)/exports -Wl,--whole-archive $(LUA_LIB) -Wl,--no-whole-archive $(LIBS)
	@$(if $(filter system,$(LUA)),echo 'warning: linked with the Lua of this system; see LUA in the Makefile' >&2,:)

$(OUT)/exports: tools/exports $(wildcard src/greenlua.h) | $(LUA_INC)/lua.h
	tools/exports $(LUA_INC) $(wildcard src/greenlua.h) >$@

$(EMBEDDED): tools/embed $(LUA_MODULES)
	@mkdir -p $(@D)
	tools/embed $(LUA_MODULES) >$@

$(EMBEDDED:.c=.c.o): $(EMBEDDED) $(OUT)/flags
	$(CC) $(ALL_CFLAGS) -Isrc/host -c -o $@ $<

$(OUT)/obj/%.o: src/% $(OUT)/flags
	@mkdir -p $(@D)
	$(CC) $(ALL_CFLAGS) $(ROOM_CFLAGS) -c -o $@ $<

# Only the last two rooms know Lua.
$(call objects,lua) $(call objects,host): ROOM_CFLAGS = -I$(LUA_INC)
$(call objects,lua) $(call objects,host): | $(LUA_INC)/lua.h

# Changes when the compiler or its flags do, and then everything is built anew.
$(OUT)/flags: FORCE
	@mkdir -p $(@D)
	@echo '$(CC) $(ALL_CFLAGS)' | cmp -s - $@ || echo '$(CC) $(ALL_CFLAGS)' >$@

# ---- Lua ----

$(LUA_DIR)/lua.h: tools/get-lua
	LUA_SRC='$(strip $(LUA_SRC))' tools/get-lua $(LUA_DIR)
	@touch $@

$(OUT)/lua/liblua.a: $(LUA_DIR)/lua.h $(OUT)/flags
	@mkdir -p $(@D)
	cd $(@D) && ls $(abspath $(LUA_DIR))/*.c | grep -v "/luac*.c$$" | xargs -n 8 -P 8 $(CC) $(LUA_CFLAGS) -c
	rm -f $@ && ar rcs $@ $(@D)/*.o

# ---- the module for stock Lua: what the rockspec calls ----

# Takes Lua from the program that loads it, libev and c-ares as shared libraries.
# All names stay inside but luaopen_green_core, the only one that lcore.c has.
PIC_OBJECTS := $(patsubst $(OUT)/obj/%,$(OUT)/pic/%,$(foreach room,core hub io lua,$(call objects,$(room))))

rock: check-curl $(OUT)/greenlua $(OUT)/green/core.so

check-curl:
	@echo '#include <curl/curl.h>' | $(CC) -E - >/dev/null 2>&1 || \
	  { echo 'greenlua needs curl/curl.h: on Debian, apt-get install libcurl4-openssl-dev' >&2; exit 1; }

install-rock: rock
	install -D -m 755 $(OUT)/greenlua $(BINDIR)/greenlua
	install -D -m 755 $(OUT)/green/core.so $(LIBDIR)/green/core.so
	cd lua && for file in $(LUA_MODULES:lua/%=%); do install -D -m 644 $$file $(LUADIR)/$$file || exit 1; done

$(OUT)/green/core.so: $(PIC_OBJECTS) tools/module.map
	@mkdir -p $(@D)
	$(CC) -shared $(CFLAGS) $(SANITIZE_FLAGS) $(LDFLAGS) -pthread -o $@ $(PIC_OBJECTS) \
	  -Wl,--version-script=tools/module.map -lev -lcares -lm -ldl

$(OUT)/pic/%.o: src/% $(OUT)/flags | $(LUA_INC)/lua.h
	@mkdir -p $(@D)
	$(CC) $(ALL_CFLAGS) -fPIC $(if $(filter %/lcore.c,$<),-fvisibility=default) -I$(LUA_INC) -c -o $@ $<

# ---- C tests: no Lua; each prints `N passed, N failed` ----

$(OUT)/libgreen.a: $(foreach room,core hub io,$(call objects,$(room)))
	rm -f $@ && ar rcs $@ $^

$(OUT)/spec/%_test: spec/c/%_test.c $(OUT)/libgreen.a
	@mkdir -p $(@D)
	$(CC) $(filter-out -DNDEBUG,$(ALL_CFLAGS)) -Isrc $(LDFLAGS) -o $@ $< $(OUT)/libgreen.a $(LIBS)

ctests: $(C_TESTS:%=$(OUT)/spec/%)

-include $(wildcard $(OUT)/obj/*/*.d $(OUT)/pic/*/*.d $(OUT)/spec/*.d)
