package harness
import ("testing";"time";"os")
func TestX(t *testing.T){
 base,_:=Tree(t.Context(), t.Output(), BaseTree)
 d:=Disk{Path:"/var/tmp/ht/base.img",Label:"base",FS:"ext4",Size:2<<30,From:base,Mount:"/base",ReadOnly:true}
 os.Remove(d.Path)
 b:=time.Now(); t.Log(d.create(t.Context()), time.Since(b))
 d2:=Disk{Path:"/var/tmp/ht/bt.img",Label:"bt",FS:"btrfs",Size:2<<30,From:base,Mount:"/bt"}
 os.Remove(d2.Path)
 b=time.Now(); t.Log(d2.create(t.Context()), time.Since(b))
 b=time.Now()
 _,_,err:=runVM(t,VMOptions{Disks:[]Disk{d,d2}},`cut -d' ' -f1 /proc/uptime
systemd-run --quiet --unit=m --slice=machine-ci.slice -p Type=notify -p Delegate=yes -p KillMode=mixed -p MemoryMax=300M systemd-nspawn --quiet --keep-unit --machine=m --directory=/bt --boot --notify-ready=yes --private-users=524288:65536 --private-users-ownership=map
cut -d' ' -f1 /proc/uptime
machinectl list --no-pager
systemctl -M m is-system-running --wait
systemd-run -M m --wait --quiet --pipe python3 -c 'x=bytearray(500*1024*1024)'; echo memory hog ended $?
cat /sys/fs/cgroup/machine.slice/machine-ci.slice/m.service/memory.max
cut -d' ' -f1 /proc/uptime
systemctl stop m
cut -d' ' -f1 /proc/uptime`)
 t.Log(time.Since(b),err)
 os.Remove(d.Path); os.Remove(d2.Path)
}
