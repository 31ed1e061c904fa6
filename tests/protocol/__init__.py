# SPDX-License-Identifier: LGPL-2.1-or-later
"""The pr-helper protocol, byte by byte, against two programs."""
