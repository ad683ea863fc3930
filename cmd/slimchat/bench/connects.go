package bench

import (
	"context"
	"errors"
	"time"

	"github.com/slimchat/slimchat/cmd/slimchat/client"
)

// giveUpAfter is how many failures in a row end the worker of a connect run: a broker that is gone or refuses everyone.
const giveUpAfter = 20

// connects runs ModeConnect: every worker connects, subscribes and disconnects under its own name.
func (r *run) connects(ctx context.Context, people identities) (*Report, error) {
	who, err := people.users(ctx, r.o.Clients)
	if err != nil {
		return nil, err
	}
	// What a refusal or a wrong address would repeat a thousand times is better said once, before the load.
	if err := r.connectOnce(ctx, who[0]); err != nil {
		return nil, err
	}
	for _, w := range who {
		r.workers.Go(func() { r.connectLoop(ctx, w) })
	}
	report, err := r.measure(ctx, func() { r.stopping.Store(true) })
	if err != nil {
		return nil, err
	}
	r.workers.Wait()
	report.Connects, report.Connect = report.Delivered, report.Delivery
	report.Published, report.Delivered, report.Delivery, report.Puback = 0, 0, Times{}, Times{}
	r.total(report, 0)
	report.Received = 0
	return report, nil
}

func (r *run) connectLoop(ctx context.Context, who identity) {
	for failed := 0; failed < giveUpAfter && !r.stopping.Load() && ctx.Err() == nil; {
		start := r.now()
		if err := r.connectOnce(ctx, who); err != nil {
			if ctx.Err() == nil {
				r.failed(err)
			}
			failed++
			continue
		}
		failed = 0
		now := r.now()
		r.delivered.Add(1)
		if r.measuring(now) {
			r.deliveryTime.Record(now - start)
		}
	}
}

// connectOnce connects, subscribes at QoS 1 and disconnects.
func (r *run) connectOnce(ctx context.Context, who identity) error {
	o := r.o.Broker
	o.ClientID, o.User, o.Password, o.CleanStart = who.clientID, who.user, who.password, true
	conn, err := client.Connect(ctx, o)
	if err != nil {
		return err
	}
	if err := conn.SetDeadline(time.Now().Add(30 * time.Second)); err != nil {
		return errors.Join(err, conn.Close())
	}
	if err := conn.Subscribe(who.inbox, 1, func([]byte) error { return nil }); err != nil {
		return errors.Join(err, conn.Close())
	}
	return conn.Disconnect()
}
