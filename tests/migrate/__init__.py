# SPDX-License-Identifier: LGPL-2.1-or-later
"""Live migration with real QEMU: the machines, the guest and the cases."""
