package systemd

import (
	"errors"
	"time"
)

// ErrGone is the cause of an error when the bus went away, for a machine's
// bus: the machine died or took its bus down.
var ErrGone = errors.New("the connection to its bus is lost")

// AnswerLimit is how long a bus may take to answer one call. None of those made
// here waits for anything; a bus that a job replaced may never answer. Only a program that is
// built for tests changes it.
var AnswerLimit = 30 * time.Second

var errNoAnswer = errors.New("its D-Bus does not answer")
