package host

import (
	"errors"
	"os"
)

// NeedRoot is asked before anything is done that only root can do.
func NeedRoot() error {
	if os.Geteuid() != 0 {
		return errors.New("nspawn-runner must run as root")
	}
	return nil
}

// NeedSystemd is asked before machines are touched.
func NeedSystemd() error {
	if err := NeedRoot(); err != nil {
		return err
	}
	if !RunsSystemd() {
		return errors.New("systemd does not run this host, so no machine can be started here; " +
			"to try nspawn-runner anyway, run 'go tool mage demo' in its source: it boots a lab that has one")
	}
	return nil
}
