package main

import (
	"encoding/json"
	"fmt"
	"io"
	"os"
	"runtime"
	"slices"
	"strings"
	"time"
)

// report is what we need of the JSON of `slimchat bench`.
type report struct {
	Mode       string  `json:"mode"`
	Delivered  float64 `json:"delivered_per_second"`
	Connects   float64 `json:"connects_per_second"`
	Delivery   times   `json:"delivery"`
	Connect    times   `json:"connect"`
	Generator  float64 `json:"generator_cores"`
	Lost       int64   `json:"lost"`
	Duplicates int64   `json:"duplicates"`
	OutOfOrder int64   `json:"out_of_order"`
	Refused    int64   `json:"refused"`
	Errors     int64   `json:"errors"`
	FirstError string  `json:"first_error"`
}

type times struct {
	P50 float64 `json:"p50_ms"`
	P99 float64 `json:"p99_ms"`
}

func (r *report) rate() float64 {
	if r.Mode == "connect" {
		return r.Connects
	}
	return r.Delivered
}

func (r *report) times() times {
	if r.Mode == "connect" {
		return r.Connect
	}
	return r.Delivery
}

// blemishes tells what should not have happened.
func (r *report) blemishes() string {
	var b strings.Builder
	for _, c := range []struct {
		name string
		n    int64
	}{{"lost", r.Lost}, {"duplicates", r.Duplicates}, {"out of order", r.OutOfOrder}, {"refused", r.Refused}, {"errors", r.Errors}} {
		if c.n > 0 {
			fmt.Fprintf(&b, "  %s %d", c.name, c.n)
		}
	}
	if r.FirstError != "" {
		fmt.Fprintf(&b, " (%s)", r.FirstError)
	}
	return b.String()
}

// result is one run of the generator.
type result struct {
	Round  int             `json:"round"`
	Broker string          `json:"broker"`
	Load   string          `json:"load"`
	Report json.RawMessage `json:"report"`

	report report
}

type results struct {
	Machine machine  `json:"machine"`
	Rounds  int      `json:"rounds"`
	Seconds float64  `json:"seconds"`
	Runs    []result `json:"runs"`
}

// machine says where the figures come from.
type machine struct {
	Date       string `json:"date"`
	Processor  string `json:"processor"`
	Cores      int    `json:"cores"`
	Kernel     string `json:"kernel"`
	FileSystem string `json:"file_system"`
	Go         string `json:"go"`
}

func describeMachine(dir string) machine {
	return machine{
		Date: time.Now().UTC().Format(time.DateOnly), Processor: cpuModel(), Cores: runtime.NumCPU(), Kernel: firstLine("/proc/sys/kernel/osrelease"),
		FileSystem: fileSystem(dir), Go: runtime.Version(),
	}
}

func cpuModel() string {
	text, err := os.ReadFile("/proc/cpuinfo")
	if err != nil {
		return ""
	}
	for line := range strings.Lines(string(text)) {
		if name, value, found := strings.Cut(line, ":"); found && strings.TrimSpace(name) == "model name" {
			return strings.TrimSpace(value)
		}
	}
	return ""
}

func firstLine(path string) string {
	text, err := os.ReadFile(path)
	if err != nil {
		return ""
	}
	line, _, _ := strings.Cut(string(text), "\n")
	return line
}

// table writes the medians as Markdown: rate and median latency of each broker, and the first one's rate over the others'.
func (r *results) table(w io.Writer) error {
	var brokers, names []string
	for _, run := range r.Runs {
		if !slices.Contains(brokers, run.Broker) {
			brokers = append(brokers, run.Broker)
		}
		if !slices.Contains(names, run.Load) {
			names = append(names, run.Load)
		}
	}
	var b strings.Builder
	fmt.Fprintf(&b, "%s, %d cores, Linux %s, %s, %s, %s; medians of %d rounds of %.0f s; a second, p50 and p99 in ms\n\n",
		r.Machine.Processor, r.Machine.Cores, r.Machine.Kernel, r.Machine.FileSystem, r.Machine.Go, r.Machine.Date, r.Rounds, r.Seconds)
	head, line := "| load |", "| --- |"
	for i, name := range brokers {
		head, line = head+" "+name+" |", line+" --- |"
		if i > 0 {
			head, line = head+" "+brokers[0]+" / "+name+" |", line+" --- |"
		}
	}
	fmt.Fprintf(&b, "%s\n%s\n", head, line)
	for _, name := range names {
		fmt.Fprintf(&b, "| %s |", name)
		first := 0.0
		for i, broker := range brokers {
			rate := r.median(broker, name, (*report).rate)
			p50 := r.median(broker, name, func(r *report) float64 { return r.times().P50 })
			p99 := r.median(broker, name, func(r *report) float64 { return r.times().P99 })
			fmt.Fprintf(&b, " %.0f · %.2f · %.2f |", rate, p50, p99)
			if i == 0 {
				first = rate
			} else {
				fmt.Fprintf(&b, " %.2f |", first/rate)
			}
		}
		b.WriteString("\n")
	}
	_, err := io.WriteString(w, b.String())
	return err
}

func (r *results) median(broker, load string, figure func(*report) float64) float64 {
	var values []float64
	for i := range r.Runs {
		if run := &r.Runs[i]; run.Broker == broker && run.Load == load {
			values = append(values, figure(&run.report))
		}
	}
	if len(values) == 0 {
		return 0
	}
	slices.Sort(values)
	middle := len(values) / 2
	if len(values)%2 == 1 {
		return values[middle]
	}
	return (values[middle-1] + values[middle]) / 2
}
