package main

import (
	"bytes"
	"errors"
	"fmt"
	"io"
	"os"
	"strings"
	"unicode"

	"github.com/spf13/cobra"
	"golang.org/x/term"

	"github.com/slimchat/slimchat/cmd/slimchat/config"
)

// maxPassword bounds what is read as a password, in bytes.
const maxPassword = 4096

func termIsTerminal(fd int) bool { return term.IsTerminal(fd) }

// passwordFlag adds --password, for those who accept that other users of the machine can read it.
func passwordFlag(cmd *cobra.Command) {
	cmd.Flags().String("password", "", "the password; visible to everyone on this machine while the command runs")
}

// readPassword gets a password: from --password with a warning, from SLIMCHAT_PASSWORD, from the terminal without echo, or as
// the first line of standard input. again asks twice on a terminal.
func readPassword(cmd *cobra.Command, prompt string, again bool) (string, error) {
	if flag := cmd.Flags().Lookup("password"); flag != nil && flag.Changed {
		fmt.Fprintln(cmd.ErrOrStderr(), "slimchat: warning: a password on the command line can be read by everyone on this machine")
		return checkPassword(flag.Value.String())
	}
	if password := os.Getenv(config.EnvPrefix + "PASSWORD"); password != "" {
		return checkPassword(password)
	}
	in, ok := cmd.InOrStdin().(*os.File)
	if !ok || !term.IsTerminal(int(in.Fd())) {
		line, err := firstLine(cmd.InOrStdin())
		if err != nil {
			return "", fmt.Errorf("reading the password: %w", err)
		}
		return checkPassword(line)
	}
	first, err := askPassword(cmd, in, prompt)
	if err != nil || !again {
		return first, err
	}
	second, err := askPassword(cmd, in, "again: ")
	if err != nil {
		return "", err
	}
	if first != second {
		return "", errors.New("the two passwords differ")
	}
	return first, nil
}

// firstLine reads one line and not a byte more: what follows is for others.
func firstLine(r io.Reader) (string, error) {
	var line []byte
	for b := make([]byte, 1); len(line) <= maxPassword; {
		n, err := r.Read(b)
		if n == 1 && b[0] == '\n' || errors.Is(err, io.EOF) {
			return strings.TrimSuffix(string(line), "\r"), nil
		}
		if err != nil {
			return "", err
		}
		line = append(line, b[:n]...)
	}
	return "", errors.New("the line is too long")
}

func askPassword(cmd *cobra.Command, in *os.File, prompt string) (string, error) {
	fmt.Fprint(cmd.ErrOrStderr(), prompt)
	text, err := term.ReadPassword(int(in.Fd()))
	fmt.Fprintln(cmd.ErrOrStderr())
	if err != nil {
		return "", fmt.Errorf("reading the password: %w", err)
	}
	return checkPassword(string(bytes.TrimRight(text, "\r\n")))
}

func checkPassword(password string) (string, error) {
	if password == "" {
		return "", errors.New("the password is empty")
	}
	return password, nil
}

// harmless makes received text safe for a terminal: control characters, which could move the cursor, rewrite what was shown or
// worse, are shown as they are named, and so are the characters that reverse the direction of text. Line ends and tabs stay.
func harmless(text string) string {
	var b strings.Builder
	for _, r := range text {
		switch {
		case r == '\n' || r == '\t':
			b.WriteRune(r)
		case r < 0x20:
			b.WriteByte('^')
			b.WriteRune(r + '@')
		case r == 0x7f:
			b.WriteString("^?")
		case unicode.IsControl(r), unicode.Is(unicode.Bidi_Control, r), r == '\u2028', r == '\u2029', r == unicode.ReplacementChar:
			fmt.Fprintf(&b, "<U+%04X>", r)
		default:
			b.WriteRune(r)
		}
	}
	return b.String()
}
