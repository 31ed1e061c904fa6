# SPDX-License-Identifier: LGPL-2.1-or-later
# The model of an LU's reservations: an independent writing-down of the rules, and the real move run on it.
check_LTLIBRARIES += tests/model/libspc-model.la
tests_model_libspc_model_la_SOURCES = \
  tests/model/spc-model.c tests/model/spc-model.h \
  tests/model/model-transport.c tests/model/model-transport.h \
  tests/model/state-dir.c tests/model/state-dir.h

MODEL_TESTS = tests/model/test-spc-model tests/model/test-move-rules tests/model/test-move-crash tests/model/test-move-model \
  tests/model/test-move-later
MOVE_WORLD = tests/model/move-world.c tests/model/move-world.h
tests_model_test_spc_model_LDADD = tests/model/libspc-model.la $(GLIB_LIBS)
tests_model_test_move_rules_SOURCES = tests/model/test-move-rules.c $(MOVE_WORLD)
tests_model_test_move_rules_LDADD = tests/model/libspc-model.la $(LDADD)
tests_model_test_move_crash_SOURCES = tests/model/test-move-crash.c $(MOVE_WORLD)
tests_model_test_move_crash_LDADD = tests/model/libspc-model.la $(LDADD)
tests_model_test_move_model_SOURCES = tests/model/test-move-model.c tests/model/move-rig.c tests/model/move-rig.h
tests_model_test_move_model_LDADD = tests/model/libspc-model.la $(LDADD)
tests_model_test_move_later_SOURCES = tests/model/test-move-later.c tests/model/move-rig.c tests/model/move-rig.h $(MOVE_WORLD)
tests_model_test_move_later_LDADD = tests/model/libspc-model.la $(LDADD)

check_PROGRAMS += $(MODEL_TESTS)
TESTS += $(MODEL_TESTS)
