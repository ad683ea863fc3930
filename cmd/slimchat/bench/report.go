package bench

import (
	"encoding/json"
	"fmt"
	"io"
	"strings"
	"text/tabwriter"
	"time"
)

// Report is what a run found. Rates and times are of the measurement, counts of the whole run.
type Report struct {
	Mode    Mode    `json:"mode"`
	Broker  string  `json:"broker"`
	Version string  `json:"mqtt"`
	Clients int     `json:"clients"`
	Window  int     `json:"window"`
	Rate    float64 `json:"rate,omitempty"`
	Size    int     `json:"size"`
	Seconds float64 `json:"seconds"`

	Published    float64 `json:"published_per_second"` // acknowledged publishes
	Delivered    float64 `json:"delivered_per_second"`
	Connects     float64 `json:"connects_per_second,omitempty"`
	Delivery     Times   `json:"delivery"` // from sending to delivery
	Puback       Times   `json:"puback"`   // from sending to PUBACK
	Connect      Times   `json:"connect"`  // from dialling to SUBACK and goodbye
	GeneratorCPU float64 `json:"generator_cores"`

	Sent       int64  `json:"sent"`
	Acked      int64  `json:"acked"`
	Refused    int64  `json:"refused"`
	Received   int64  `json:"received"` // without duplicates
	Lost       int64  `json:"lost"`     // acknowledged and not delivered before the run gave up waiting
	Duplicates int64  `json:"duplicates"`
	OutOfOrder int64  `json:"out_of_order"`
	Errors     int64  `json:"errors"`
	FirstError string `json:"first_error,omitempty"`
}

// Times are percentiles in milliseconds.
type Times struct {
	Count int64   `json:"count"`
	Mean  float64 `json:"mean_ms"`
	P50   float64 `json:"p50_ms"`
	P90   float64 `json:"p90_ms"`
	P99   float64 `json:"p99_ms"`
	Max   float64 `json:"max_ms"`
}

func timesOf(h *Histogram) Times {
	ms := func(d time.Duration) float64 { return float64(d) / float64(time.Millisecond) }
	return Times{Count: h.Count(), Mean: ms(h.Mean()), P50: ms(h.Quantile(0.5)), P90: ms(h.Quantile(0.9)), P99: ms(h.Quantile(0.99)), Max: ms(h.Max())}
}

// WriteJSON writes the report as one JSON object.
func (r *Report) WriteJSON(w io.Writer) error {
	encoder := json.NewEncoder(w)
	encoder.SetIndent("", "  ")
	return encoder.Encode(r)
}

// WriteText writes the report for people.
func (r *Report) WriteText(w io.Writer) error {
	var b strings.Builder
	fmt.Fprintf(&b, "%s against %s, MQTT %s, %.1f s, payload %d bytes, %d clients", r.Mode, r.Broker, r.Version, r.Seconds, r.Size, r.Clients)
	switch {
	case r.Mode == ModeConnect:
	case r.Rate > 0:
		fmt.Fprintf(&b, ", %.0f messages a second", r.Rate)
	default:
		fmt.Fprintf(&b, ", %d in flight each", r.Window)
	}
	b.WriteString("\n\n")
	table := tabwriter.NewWriter(&b, 0, 0, 2, ' ', tabwriter.AlignRight)
	fmt.Fprintln(table, "\tper second\tp50 ms\tp90 ms\tp99 ms\tmax ms\t")
	row := func(name string, rate float64, t Times) {
		fmt.Fprintf(table, "%s\t%.0f\t%.2f\t%.2f\t%.2f\t%.2f\t\n", name, rate, t.P50, t.P90, t.P99, t.Max)
	}
	if r.Mode == ModeConnect {
		row("connect", r.Connects, r.Connect)
	} else {
		row("delivery", r.Delivered, r.Delivery)
		row("puback", r.Published, r.Puback)
	}
	if err := table.Flush(); err != nil {
		return err
	}
	b.WriteString("\n")
	if r.Mode != ModeConnect {
		fmt.Fprintf(&b, "sent %d, acknowledged %d, refused %d, received %d, lost %d, duplicates %d, out of order %d\n",
			r.Sent, r.Acked, r.Refused, r.Received, r.Lost, r.Duplicates, r.OutOfOrder)
	}
	fmt.Fprintf(&b, "errors %d, generator %.2f cores\n", r.Errors, r.GeneratorCPU)
	if r.FirstError != "" {
		fmt.Fprintf(&b, "first error: %s\n", r.FirstError)
	}
	_, err := io.WriteString(w, b.String())
	return err
}
