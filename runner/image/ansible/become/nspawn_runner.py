# Copyright: the authors of nspawn-runner
# GNU General Public License v3.0+
"""Becomes another user in an image that nspawn-runner is building.

Commands enter the image as root, so no password and no sudo are needed: an image
may lack sudo, and where it is, it takes the build's environment away. The
inventory names this method for the image, which counts more than what a playbook
says with become_method; its become_flags are for programs that are not used here.
"""

DOCUMENTATION = """
    name: nspawn_runner
    short_description: become a user from root, with runuser
    description: Runs a command as a user, whatever the user's own shell is.
    author: nspawn-runner
    options:
      become_user:
        description: The user to become.
        default: root
        ini:
          - section: privilege_escalation
            key: become_user
        vars:
          - name: ansible_become_user
        env:
          - name: ANSIBLE_BECOME_USER
        keyword:
          - name: become_user
"""

import shlex

from ansible.plugins.become import BecomeBase


class BecomeModule(BecomeBase):
    name = "nspawn_runner"

    def build_become_command(self, cmd, shell):
        super().build_become_command(cmd, shell)
        user = self.get_option("become_user") or "root"
        if not cmd or user in ("root", "0"):
            return cmd
        # A shell like nologin, which daemons' users have, runs no command.
        command = self._build_success_command(cmd, shell, noexe=True)
        return "runuser -s /bin/sh -c %s %s" % (command, shlex.quote(user))
