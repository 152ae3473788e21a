// Command unmoor removes images and containers from a containers/storage store that several engines
// share.
//
// The package turns the user's words into a service.Request, has it answered in this process or by a daemon
// (choice.go), and turns what comes of it into words and an exit code: 0 done, 1 no such image or container,
// 2 something is in use and was kept, 125 anything else; of several the highest counts. Each verb has a file
// of its own, cmd_VERB.go. All that says no to the user stands in refusal.go, the wiring of the parts in
// main.go.
package main
