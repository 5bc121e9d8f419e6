# Copyright: the authors of nspawn-runner
# GNU General Public License v3.0+
"""Ansible's way into an image that nspawn-runner is building.

The image's tree is held open by one systemd-nspawn for the whole build, and
nspawn-runner gives us the command that enters it. It is called chroot because
the connection of the Python original was, and playbooks test for the name.
"""

DOCUMENTATION = """
    name: chroot
    short_description: run tasks in an image that nspawn-runner is building
    description: Each command enters the container in which the image is built.
    author: nspawn-runner
    extends_documentation_fragment:
      - connection_pipelining
    options:
      enter:
        description: The command that runs its arguments in the container.
        type: list
        elements: string
        required: true
        vars:
          - name: ansible_chroot_enter
      environment:
        description: The whole environment of commands in the container.
        type: dict
        required: true
        vars:
          - name: ansible_chroot_environment
      owner:
        description: The host's user id of root in the container.
        type: int
        default: 0
        vars:
          - name: ansible_chroot_owner
      group:
        description: The directory of the control group of commands, empty for our own.
        default: ""
        vars:
          - name: ansible_chroot_group
      podman_executable:
        description: The program that runs commands in the container as podman does, for the module synchronize.
        default: ""
        vars:
          - name: ansible_podman_executable
      executable:
        description: The shell that runs commands.
        default: /bin/sh
        vars:
          - name: ansible_executable
"""

import os
import shutil
import stat
import subprocess

from ansible.errors import AnsibleError, AnsibleFileNotFound
from ansible.module_utils.common.text.converters import to_bytes, to_native
from ansible.plugins.connection import ConnectionBase


class Connection(ConnectionBase):
    # What synchronize of ansible.posix knows: it then has rsync call podman_executable.
    transport = "podman"
    has_pipelining = True
    default_user = "root"

    def _connect(self):
        self._connected = True
        return self

    def close(self):
        self._connected = False

    def exec_command(self, cmd, in_data=None, sudoable=False):
        super().exec_command(cmd, in_data=in_data, sudoable=sudoable)
        done = self._inside([self.get_option("executable"), "-c", cmd], input=in_data or b"", stdout=subprocess.PIPE)
        return done.returncode, done.stdout, done.stderr

    def put_file(self, in_path, out_path):
        super().put_file(in_path, out_path)
        if not os.path.exists(to_bytes(in_path)):
            raise AnsibleFileNotFound("no such file: %s" % to_native(in_path))
        with open(to_bytes(in_path), "rb") as source:
            done = self._inside(["/bin/sh", "-c", 'exec cat > "$0"', out_path], stdin=source, stdout=subprocess.DEVNULL)
        if done.returncode != 0:
            raise AnsibleError("copy %s to %s: %s" % (in_path, out_path, to_native(done.stderr)))

    def fetch_file(self, in_path, out_path):
        super().fetch_file(in_path, out_path)
        with open(to_bytes(out_path), "wb") as target:
            done = self._inside(["cat", "--", in_path], stdin=subprocess.DEVNULL, stdout=target)
        if done.returncode != 0:
            raise AnsibleError("fetch %s: %s" % (in_path, to_native(done.stderr)))

    def _inside(self, args, **streams):
        """Run a command in the container; its standard error is collected."""
        enter = self.get_option("enter")
        environment = self.get_option("environment")
        return subprocess.run(
            # By its full path: the environment is that of the inside.
            [to_bytes(arg) for arg in [shutil.which(enter[0])] + enter[1:] + args],
            env={to_bytes(name): to_bytes(value) for name, value in environment.items()},
            stderr=subprocess.PIPE,
            umask=0o022,
            preexec_fn=self._member(),
            **streams
        )

    def _member(self):
        """What makes a process one of the container's before it enters, if that needs more than its namespaces."""
        group, owner = self.get_option("group"), self.get_option("owner")
        if not group:
            return None

        def join():
            with open(os.path.join(group, "cgroup.procs"), "w", encoding="ascii") as procs:
                procs.write("0")
            for stream in range(3):
                # Root inside shall be able to open /dev/stdout and its like.
                if stat.S_ISFIFO(os.fstat(stream).st_mode):
                    os.fchown(stream, owner, owner)

        return join
