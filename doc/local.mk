# SPDX-License-Identifier: LGPL-2.1-or-later
EXTRA_DIST += doc/architecture.md doc/ci.md doc/example.c doc/security.md doc/testing.md
