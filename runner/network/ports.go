package network

import (
	"fmt"
	"os"

	"github.com/cilium/ebpf"
	"github.com/cilium/ebpf/asm"
	"github.com/cilium/ebpf/btf"
	"golang.org/x/sys/unix"
)

// When a job sends a datagram, pasta binds the job's port on the host too, and with
// SO_REUSEADDR, which lets several sockets have one port. So a job received what was meant
// for a service of the host, and answered in its place (seen). These programs have the
// kernel choose a free port for each socket of pasta's control group. pasta does not need
// the port that it asked for. The pasta of 2025 checks with getsockname(2) that it got it,
// and is told that it did.

// hidePorts makes the processes of a control group bind ports of the kernel's choice.
func hidePorts(cgroup *os.File) error {
	integer := &btf.Int{Name: "int", Size: 4}
	wanted, err := ebpf.NewMap(&ebpf.MapSpec{ // the port that each socket asked for
		Type: ebpf.SkStorage, KeySize: 4, ValueSize: 4, Key: integer, Value: integer, Flags: unix.BPF_F_NO_PREALLOC,
	})
	if err != nil {
		return fmt.Errorf("create the map of the ports of sockets: %w", err)
	}
	defer wanted.Close() // the programs keep it
	err = attach(cgroup,
		hook{ebpf.AttachCGroupSetsockopt, takeNoShare()},
		hook{ebpf.AttachCGroupInet4Bind, forgetPort(wanted)},
		hook{ebpf.AttachCGroupInet6Bind, forgetPort(wanted)},
		hook{ebpf.AttachCgroupInet4GetSockname, tellPort(wanted)},
		hook{ebpf.AttachCgroupInet6GetSockname, tellPort(wanted)},
	)
	if err != nil {
		return fmt.Errorf("load the filter for ports: %w", err)
	}
	return nil
}

// forgetPort is asked for each bind(2). For datagrams it notes the wanted port and replaces
// it by 0, for which the kernel chooses one. It leaves the address alone: the pasta of 2023
// also binds, for a moment, the address to which a job connects, to see whether it is the
// host's, and that bind must still fail if it is not.
func forgetPort(wanted *ebpf.Map) asm.Instructions {
	return append(asm.Instructions{
		asm.Mov.Reg(asm.R6, asm.R1),
		asm.LoadMem(asm.R7, asm.R6, callType, asm.Word),
		asm.JNE.Imm(asm.R7, unix.SOCK_DGRAM, "allow"),
		asm.LoadMem(asm.R7, asm.R6, callPort, asm.Word),
		asm.JEq.Imm(asm.R7, 0, "allow"),
		asm.StoreMem(asm.RFP, -4, asm.R7, asm.Word),
		asm.LoadMapPtr(asm.R1, wanted.FD()),
		asm.LoadMem(asm.R2, asm.R6, callSocket, asm.DWord),
		asm.Mov.Reg(asm.R3, asm.RFP),
		asm.Add.Imm(asm.R3, -4),
		asm.Mov.Imm(asm.R4, unix.BPF_LOCAL_STORAGE_GET_F_CREATE),
		asm.FnSkStorageGet.Call(),
		asm.Mov.Imm(asm.R1, 0),
		asm.StoreMem(asm.R6, callPort, asm.R1, asm.Word),
	}, allow()...)
}

// tellPort is asked for each getsockname(2). It answers with the port that bind(2) wanted.
func tellPort(wanted *ebpf.Map) asm.Instructions {
	return append(asm.Instructions{
		asm.Mov.Reg(asm.R6, asm.R1),
		asm.LoadMapPtr(asm.R1, wanted.FD()),
		asm.LoadMem(asm.R2, asm.R6, callSocket, asm.DWord),
		asm.Mov.Imm(asm.R3, 0),
		asm.Mov.Imm(asm.R4, 0),
		asm.FnSkStorageGet.Call(),
		asm.JEq.Imm(asm.R0, 0, "allow"),
		asm.LoadMem(asm.R1, asm.R0, 0, asm.Word),
		asm.StoreMem(asm.R6, callPort, asm.R1, asm.Word),
	}, allow()...)
}

// Where things are in struct bpf_sockopt (linux/bpf.h).
const (
	optionValue = 8
	optionEnd   = 16
	optionLevel = 24
	optionName  = 28
)

// takeNoShare is asked for each setsockopt(2). Two sockets with SO_REUSEADDR may get the same
// port, or the same identifier of pings; ping sockets have the option from the start. So a
// call that turns SO_REUSEADDR or SO_REUSEPORT on turns it off instead.
func takeNoShare() asm.Instructions {
	return append(asm.Instructions{
		asm.LoadMem(asm.R2, asm.R1, optionLevel, asm.Word),
		asm.JNE.Imm(asm.R2, unix.SOL_SOCKET, "allow"),
		asm.LoadMem(asm.R2, asm.R1, optionName, asm.Word),
		asm.JEq.Imm(asm.R2, unix.SO_REUSEADDR, "refuse"),
		asm.JNE.Imm(asm.R2, unix.SO_REUSEPORT, "allow"),
		asm.LoadMem(asm.R2, asm.R1, optionValue, asm.DWord).WithSymbol("refuse"),
		asm.LoadMem(asm.R3, asm.R1, optionEnd, asm.DWord),
		asm.Mov.Reg(asm.R4, asm.R2),
		asm.Add.Imm(asm.R4, 4),
		asm.JGT.Reg(asm.R4, asm.R3, "allow"),
		asm.Mov.Imm(asm.R3, 0),
		asm.StoreMem(asm.R2, 0, asm.R3, asm.Word),
	}, allow()...)
}
