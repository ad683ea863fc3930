package msglog

import (
	"errors"

	"github.com/slimchat/slimchat/im"
)

// Causes of failure, for errors.Is. What Append and its callbacks return is an *im.Error
// that wraps one of them.
var (
	// ErrOverload: too much waits for its commit. Temporary.
	ErrOverload = errors.New("msglog: the commit queue is full")
	// ErrDiskFull: the file system has too little space. Temporary.
	ErrDiskFull = errors.New("msglog: the disk is full")
	// ErrRefused: JetStream did not store the message; it is certain that the log does not
	// have it. Temporary.
	ErrRefused = errors.New("msglog: the log did not take the message")
	// ErrTooLarge: the record is larger than Options.MaxMsgBytes.
	ErrTooLarge = errors.New("msglog: the message is too large for the log")
	// ErrUnwritable: the log has failed and takes nothing until it is opened again. For a
	// record that was being committed the outcome is unknown: it may be found in the log
	// after the next start, as one that was never acknowledged.
	ErrUnwritable = errors.New("msglog: the log is not writable")
	// ErrClosed: the log is closed.
	ErrClosed = errors.New("msglog: the log is closed")
	// ErrUnrecovered: files of a stream exist that the server could not recover.
	ErrUnrecovered = errors.New("the server could not recover the files of this stream")
)

func unavailable(cause error, message string) error {
	return &im.Error{Code: im.CodeUnavailable, Message: message, Err: cause}
}

func tooLarge() error {
	return &im.Error{Code: im.CodeTooLarge, Message: "the message is too large", Err: ErrTooLarge}
}
