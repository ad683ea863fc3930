// Command slimchat is the SlimChat server and its tools: run `slimchat --help`.
package main

import "os"

func main() {
	os.Exit(run(os.Args[1:]))
}
