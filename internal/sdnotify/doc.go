// Package sdnotify tells the service manager how the service stands (sd_notify(3)).
//
// Without a service manager all of it does nothing. What cannot be told is logged, and no reason to stop:
// the service manager draws its own conclusions.
package sdnotify
