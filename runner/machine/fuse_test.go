package machine

import "testing"

func TestFUSEFileSystemsAreToldByTheirMounts(t *testing.T) {
	for line, want := range map[string]string{
		`36 35 0:103 / /root/fuse rw,nosuid shared:1 - fuse hang rw,user_id=0`:             "103",
		`36 35 0:104 / /mnt/a\040-\040fuse rw - fuse.sshfs me@host: rw`:                    "104",
		`36 35 8:17 / /mnt rw master:3 propagate_from:2 - fuseblk /dev/sdb1 rw`:            "8388625",
		`36 35 0:30 / /sys/fs/fuse/connections rw - fusectl fusectl rw`:                    "",
		`36 35 0:31 / /mnt/fuse rw - tmpfs fuse rw`:                                        "",
		`36 35 0:32 / /mnt/a\040-\040fuse\040x rw - overlay overlay rw,lowerdir=/x - fuse`: "",
		`36 35 x / /mnt rw - fuse x rw`:                                                    "",
		`36 35 - fuse`:                                                                     "",
		``:                                                                                 "",
	} {
		if got, is := fuseDevice(line); got != want || is != (want != "") {
			t.Errorf("%s: %q", line, got)
		}
	}
}
