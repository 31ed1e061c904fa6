# SPDX-License-Identifier: LGPL-2.1-or-later
"""The machines of the suite."""


class World:
    def __init__(self, runner, root):
        self.runner, self.root = runner, root

    def story(self):
        return ""

    def end_case(self):
        pass

    def end(self):
        pass
