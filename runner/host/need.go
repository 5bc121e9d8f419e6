package host

import (
	"errors"
	"fmt"
	"os"
)

// NeedRoot is asked before anything is done that only root can do.
func NeedRoot() error {
	if id := os.Geteuid(); id != 0 {
		return fmt.Errorf("this command must run as root, not as user id %d; for jobs, gitlab-runner itself must run as root", id)
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
