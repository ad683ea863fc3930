package config

import (
	"fmt"
	"io"
	"strings"
)

// commentWidth is where the comments of a printed configuration wrap.
const commentWidth = 100

// WriteDefault writes the default configuration as a file with every setting explained. Reading it back gives the defaults.
func WriteDefault(w io.Writer) error {
	var b strings.Builder
	b.WriteString("# SlimChat's settings with their defaults. Keep the lines that you change; the rest may go.\n")
	b.WriteString("# The same names work as environment variables (SLIMCHAT_MQTT_LISTEN) and flags (--mqtt-listen), which go first.\n")
	var open []string // the sections that the last line was in
	for _, key := range Keys() {
		path := strings.Split(key.Name, ".")
		common := 0
		for common < len(open) && common < len(path)-1 && open[common] == path[common] {
			common++
		}
		if common == 0 && (len(open) > 0 || len(path) > 1) {
			b.WriteString("\n")
		}
		for depth := common; depth < len(path)-1; depth++ {
			fmt.Fprintf(&b, "%s%s:\n", indent(depth), path[depth])
		}
		open = path[:len(path)-1]
		for _, line := range wrap(key.Doc, commentWidth) {
			fmt.Fprintf(&b, "%s# %s\n", indent(len(open)), line)
		}
		fmt.Fprintf(&b, "%s%s: %s\n", indent(len(open)), path[len(path)-1], quoted(key))
	}
	_, err := io.WriteString(w, b.String())
	return err
}

// WriteMarkdown writes the table of all settings for the documentation.
func WriteMarkdown(w io.Writer) error {
	var b strings.Builder
	b.WriteString("| key | default | |\n| --- | --- | --- |\n")
	for _, key := range Keys() {
		shown := "`" + key.Default + "`"
		if key.Default == "" || key.Default == "[]" {
			shown = ""
		}
		fmt.Fprintf(&b, "| `%s` | %s | %s |\n", key.Name, shown, strings.ReplaceAll(key.Doc, "|", "\\|"))
	}
	_, err := io.WriteString(w, b.String())
	return err
}

func indent(depth int) string { return strings.Repeat("  ", depth) }

// quoted is a default as YAML: strings in quotes, everything else as it is.
func quoted(key Key) string {
	if key.Type() == "string" {
		return fmt.Sprintf("%q", key.Default)
	}
	return key.Default
}

// wrap breaks text into lines of at most width bytes, at spaces.
func wrap(text string, width int) []string {
	var lines []string
	line := ""
	for _, word := range strings.Fields(text) {
		if line != "" && len(line)+1+len(word) > width {
			lines, line = append(lines, line), ""
		}
		if line != "" {
			line += " "
		}
		line += word
	}
	return append(lines, line)
}
