# SPDX-License-Identifier: LGPL-2.1-or-later
# The model of an LU's reservations: an independent writing-down of the rules, and the real move run on it.
check_LTLIBRARIES += tests/model/libspc-model.la
tests_model_libspc_model_la_SOURCES = \
  tests/model/spc-model.c tests/model/spc-model.h \
  tests/model/model-transport.c tests/model/model-transport.h

MODEL_TESTS = tests/model/test-spc-model
tests_model_test_spc_model_LDADD = tests/model/libspc-model.la $(GLIB_LIBS)

check_PROGRAMS += $(MODEL_TESTS)
TESTS += $(MODEL_TESTS)
