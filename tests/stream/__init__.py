# SPDX-License-Identifier: LGPL-2.1-or-later
"""`holdfast stream` with real QEMU and a guest that checks its own memory, and against every fault."""
