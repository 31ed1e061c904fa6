# SPDX-License-Identifier: LGPL-2.1-or-later
"""What the suites on real targets share. Standard library only."""
