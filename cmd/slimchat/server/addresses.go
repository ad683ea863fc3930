package server

import (
	"encoding/json"
	"errors"
	"io/fs"
	"os"
	"path/filepath"
)

// Addresses are those that a running server listens on; empty where it does not.
type Addresses struct {
	HTTP       string `json:"http"`
	MQTT       string `json:"mqtt"`
	MQTTS      string `json:"mqtts"`
	Cluster    string `json:"cluster"`
	Federation string `json:"federation"`
}

// listenFile is where a server that is ready says what it listens on (wire.md section 7).
func listenFile(data string) string { return filepath.Join(data, "run", "listen.json") }

// write puts the addresses into the listen file, all at once: a reader finds them whole or not at all.
func (a Addresses) write(data string) error {
	path := listenFile(data)
	if err := os.MkdirAll(filepath.Dir(path), 0o755); err != nil {
		return err
	}
	text, err := json.Marshal(a)
	if err != nil {
		return err
	}
	next := path + ".next"
	if err := os.WriteFile(next, append(text, '\n'), 0o644); err != nil {
		return err
	}
	return os.Rename(next, path)
}

// removeListenFile removes what this server, or one that did not get to it, has written.
func removeListenFile(data string) error {
	if err := os.Remove(listenFile(data)); err != nil && !errors.Is(err, fs.ErrNotExist) {
		return err
	}
	return nil
}
