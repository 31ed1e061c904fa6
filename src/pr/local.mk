# SPDX-License-Identifier: LGPL-2.1-or-later
libholdfast_core_la_SOURCES += src/pr/pr-wire.c src/pr/pr-observation.c src/pr/pr-state.c
libholdfast_core_la_SOURCES += src/pr/journal.c src/pr/journal.h
libholdfast_core_la_SOURCES += src/pr/pr-plan.c src/pr/pr-plan.h src/pr/pr-facts.c src/pr/pr-facts.h
libholdfast_core_la_SOURCES += src/pr/pr-exec.c src/pr/pr-exec.h
libholdfast_core_la_SOURCES += src/pr/pr-unit.c src/pr/pr-unit-act.c src/pr/pr-unit-release.c src/pr/pr-unit-abort.c \
  src/pr/pr-unit.h src/pr/pr-unit-private.h src/pr/pr-save.c
