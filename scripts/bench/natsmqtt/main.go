// Command natsmqtt runs a nats-server with nothing but its own MQTT listener, for comparison with SlimChat's gateway: one node,
// streams with one replica, no sync before an acknowledgement (JetStream's default). It prints the address once it is ready.
package main

import (
	"errors"
	"flag"
	"fmt"
	"net"
	"os"
	"os/signal"
	"strconv"
	"syscall"
	"time"

	"github.com/nats-io/nats-server/v2/server"
)

func main() {
	data := flag.String("data", "", "directory for JetStream (required)")
	listen := flag.String("listen", "127.0.0.1:0", "address of the MQTT listener")
	flag.Parse()
	if err := run(*data, *listen); err != nil {
		fmt.Fprintln(os.Stderr, "natsmqtt:", err)
		os.Exit(1)
	}
}

func run(data, listen string) error {
	if data == "" {
		return errors.New("-data is required")
	}
	host, port, err := net.SplitHostPort(listen)
	if err != nil {
		return err
	}
	number, err := strconv.Atoi(port)
	if err != nil {
		return err
	}
	if number == 0 {
		number = server.RANDOM_PORT
	}
	options := &server.Options{
		ServerName: "natsmqtt", Host: "127.0.0.1", Port: server.RANDOM_PORT, NoSigs: true, NoLog: true,
		JetStream: true, StoreDir: data,
		MQTT: server.MQTTOpts{Host: host, Port: number},
	}
	s, err := server.NewServer(options)
	if err != nil {
		return err
	}
	signals := make(chan os.Signal, 1)
	signal.Notify(signals, syscall.SIGINT, syscall.SIGTERM)
	go s.Start()
	if !s.ReadyForConnections(30 * time.Second) {
		s.Shutdown()
		return errors.New("the server did not become ready")
	}
	// The server writes the port that it got into the options.
	fmt.Println(net.JoinHostPort(host, strconv.Itoa(options.MQTT.Port)))
	<-signals
	s.Shutdown()
	s.WaitForShutdown()
	return nil
}
