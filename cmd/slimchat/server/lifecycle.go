package server

import (
	"context"
	"errors"
	"fmt"
	"log/slog"
	"slices"
	"time"
)

// lifecycle remembers how to stop what was started, in reverse order.
type lifecycle struct {
	log   *slog.Logger
	steps []step
}

type step struct {
	name string
	stop func(ctx context.Context) error
}

// started notes a part that runs and how it is stopped.
func (l *lifecycle) started(name string, stop func(ctx context.Context) error) {
	l.steps = append(l.steps, step{name, stop})
}

// stop stops every part, the last one first. A part that fails to stop in order does not keep the others from it. Each gets
// what is left of ctx, but at least leastStop, because those further down (the log, the database) have the most to lose.
func (l *lifecycle) stop(ctx context.Context) error {
	var errs []error
	for _, s := range slices.Backward(l.steps) {
		begin := time.Now()
		errs = append(errs, l.stopOne(ctx, s))
		l.log.Debug("stopped", "part", s.name, "took", time.Since(begin))
	}
	l.steps = nil
	return errors.Join(errs...)
}

// leastStop is what every part gets to stop in, even when those before it took all the time.
const leastStop = 3 * time.Second

func (l *lifecycle) stopOne(ctx context.Context, s step) error {
	if deadline, ok := ctx.Deadline(); ok && time.Until(deadline) < leastStop {
		var cancel context.CancelFunc
		ctx, cancel = context.WithTimeout(context.WithoutCancel(ctx), leastStop)
		defer cancel()
	}
	if err := s.stop(ctx); err != nil {
		return fmt.Errorf("stopping %s: %w", s.name, err)
	}
	return nil
}
