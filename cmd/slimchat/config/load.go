package config

import (
	"errors"
	"fmt"
	"io/fs"
	"os"
	"regexp"
	"strings"

	"github.com/knadh/koanf/providers/confmap"
	"github.com/knadh/koanf/providers/env/v2"
	"github.com/knadh/koanf/providers/posflag"
	"github.com/knadh/koanf/v2"
	"github.com/spf13/pflag"
)

const (
	// EnvPrefix begins the name of every environment variable of ours.
	EnvPrefix = "SLIMCHAT_"
	// FileFlag is the flag that names the configuration file; its variable is SLIMCHAT_CONFIG.
	FileFlag = "config"
	// DefaultFile is read when it exists and no other file is named.
	DefaultFile = "slimchat.yaml"
)

// clientVariables are variables of ours that are no settings: the file's name, and what the client verbs (chat, send,
// bench) take from the environment.
var clientVariables = map[string]bool{
	EnvPrefix + "CONFIG":   true,
	EnvPrefix + "TOKEN":    true,
	EnvPrefix + "PASSWORD": true,
}

// testPrefix begins the variables of the project's own tests.
const testPrefix = EnvPrefix + "TEST_"

// serviceLinks matches the variables that Kubernetes and Docker put into every container beside a service named slimchat
// (SLIMCHAT_SERVICE_HOST, SLIMCHAT_PORT_8080_TCP_ADDR and so on). Nobody wrote them for us, so they are no mistakes.
var serviceLinks = regexp.MustCompile(`^SLIMCHAT_([A-Z0-9_]+_)?(SERVICE_HOST|SERVICE_PORT(_[A-Z0-9_]+)?|PORT|PORT_[0-9]+_(TCP|UDP|SCTP)(_(PROTO|PORT|ADDR))?)$`)

// Sources is where a configuration comes from.
type Sources struct {
	// File is the file to read; it must exist. Empty means DefaultFile, if it exists.
	File string
	// Environ is the environment, as os.Environ has it.
	Environ []string
	// Flags holds the flags of AddFlags once parsed; nil means none.
	Flags *pflag.FlagSet
}

// SourcesOf returns the sources of a process: its environment, its flags, and the file that these name.
func SourcesOf(flags *pflag.FlagSet) Sources {
	src := Sources{Environ: os.Environ(), Flags: flags, File: os.Getenv(EnvPrefix + "CONFIG")}
	if f := flags.Lookup(FileFlag); f != nil && f.Changed {
		src.File = f.Value.String()
	}
	return src
}

// Load reads the configuration from its sources, checks it and fills in what is derived. The error names every problem that
// was found, one a line, each with where it stands, the key, the value and the reason.
func Load(src Sources) (*Config, error) {
	l := loader{merged: koanf.New("."), origin: map[string]string{}}
	for _, layer := range []func(Sources) error{l.file, l.environment, l.flags} {
		if err := layer(src); err != nil {
			return nil, err
		}
	}
	c := Default()
	for _, key := range Keys() {
		if !l.merged.Exists(key.Name) {
			continue
		}
		if err := key.set(c, l.merged.Get(key.Name)); err != nil {
			l.problem(key.Name, err.Error())
		}
	}
	if err := errors.Join(l.problems...); err != nil {
		return nil, err
	}
	c.check(l.problem)
	if err := errors.Join(l.problems...); err != nil {
		return nil, err
	}
	if err := c.resolve(); err != nil {
		return nil, err
	}
	return c, nil
}

// loader gathers the layers and what is wrong with them.
type loader struct {
	merged   *koanf.Koanf
	origin   map[string]string // key → where its value was set last: a file's line, a variable, a flag
	problems []error
}

// problem notes what is wrong with the value of key.
func (l *loader) problem(key, reason string) {
	if where := l.origin[key]; where != "" {
		l.problems = append(l.problems, fmt.Errorf("%s: %s: %s", where, key, reason))
		return
	}
	l.problems = append(l.problems, fmt.Errorf("%s: %s", key, reason))
}

// unknown notes a name that is no setting; written turns a key into the way that such a name is written there.
func (l *loader) unknown(where, name string, written func(Key) string) {
	var names []string
	for _, key := range Keys() {
		names = append(names, written(key))
	}
	text := fmt.Sprintf("%s: no such setting: %s", where, name)
	if near := nearest(name, names); near != "" {
		text += "; did you mean " + near + "?"
	}
	l.problems = append(l.problems, errors.New(text))
}

func (l *loader) file(src Sources) error {
	path := src.File
	if path == "" {
		path = DefaultFile
	}
	text, err := os.ReadFile(path)
	if errors.Is(err, fs.ErrNotExist) && src.File == "" {
		return nil
	}
	if err != nil {
		return fmt.Errorf("configuration file: %w", err)
	}
	entries, err := parseFile(path, text)
	if err != nil {
		return err
	}
	values := map[string]any{}
	known := keysByName()
	for _, e := range entries {
		where := fmt.Sprintf("%s:%d", path, e.line)
		if _, ok := known[e.key]; !ok {
			l.unknown(where, e.key, func(k Key) string { return k.Name })
			continue
		}
		if _, twice := values[e.key]; twice {
			l.problems = append(l.problems, fmt.Errorf("%s: %s is set twice (first at %s)", where, e.key, l.origin[e.key]))
			continue
		}
		values[e.key], l.origin[e.key] = e.value, where
	}
	return l.merged.Load(confmap.Provider(values, "."), nil)
}

func (l *loader) environment(src Sources) error {
	byEnv := map[string]Key{}
	for _, key := range Keys() {
		byEnv[key.Env()] = key
	}
	return l.merged.Load(env.Provider(".", env.Opt{
		Prefix:      EnvPrefix,
		EnvironFunc: func() []string { return src.Environ },
		TransformFunc: func(name, value string) (string, any) {
			key, ok := byEnv[name]
			switch {
			case ok:
				l.origin[key.Name] = name
				return key.Name, value
			case clientVariables[name] || strings.HasPrefix(name, testPrefix) || serviceLinks.MatchString(name):
			default:
				l.unknown("environment", name, Key.Env)
			}
			return "", nil
		},
	}), nil)
}

func (l *loader) flags(src Sources) error {
	if src.Flags == nil {
		return nil
	}
	byFlag := map[string]Key{}
	for _, key := range Keys() {
		byFlag[key.Flag()] = key
	}
	return l.merged.Load(posflag.ProviderWithFlag(src.Flags, ".", l.merged, func(f *pflag.Flag) (string, any) {
		key, ok := byFlag[f.Name]
		if !ok || !f.Changed {
			return "", nil
		}
		l.origin[key.Name] = "--" + f.Name
		return key.Name, f.Value.String()
	}), nil)
}

func keysByName() map[string]Key {
	keys := map[string]Key{}
	for _, key := range Keys() {
		keys[key.Name] = key
	}
	return keys
}

// AddFlags gives flags one flag for every setting, and the one that names the file.
func AddFlags(flags *pflag.FlagSet) {
	flags.String(FileFlag, "", "configuration file (default "+DefaultFile+", if it exists)")
	for _, key := range Keys() {
		f := flags.VarPF(&flagValue{text: shownDefault(key), kind: key.Type()}, key.Flag(), "", flagDoc(key.Doc))
		if key.Type() == "bool" {
			f.NoOptDefVal = "true"
		}
	}
}

// flagDoc is a setting's explanation in the style of help texts.
func flagDoc(doc string) string {
	return strings.TrimSuffix(strings.ReplaceAll(doc, "`", ""), ".")
}

func shownDefault(key Key) string {
	if key.Default == "[]" || key.Default == "false" {
		return ""
	}
	return key.Default
}

// flagValue keeps a flag's text; Load reads it like the text of a variable.
type flagValue struct{ text, kind string }

func (v *flagValue) String() string     { return v.text }
func (v *flagValue) Set(s string) error { v.text = s; return nil }
func (v *flagValue) Type() string       { return v.kind }
