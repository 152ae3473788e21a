// Package fetch reads what lies behind a web address, within bounds.
package fetch

import (
	"context"
	"errors"
	"fmt"
	"io"
	"net/http"
	"net/url"
	"time"
)

// Options bound a fetch.
type Options struct {
	// Timeout is how long all of it may take, to the last byte. Zero: as long as its context.
	Timeout time.Duration
	// Limit is how many bytes there may be. Zero: any number.
	Limit int64
	// Transport is how it is done; nil for the usual way, with the proxies that the environment names.
	Transport http.RoundTripper
}

// maxRedirects is how often a server may send the reader elsewhere.
const maxRedirects = 10

// IsAddress is whether text is a web address, http or https.
func IsAddress(text string) bool {
	u, err := url.Parse(text)
	return err == nil && web(u) && u.Host != ""
}

func web(u *url.URL) bool { return u.Scheme == "http" || u.Scheme == "https" }

// Copy writes what an address leads to. Anything but 200 is an error, and so is being sent from https to
// anything else, and an answer that breaks off.
func Copy(ctx context.Context, w io.Writer, address string, o Options) error {
	u, err := url.Parse(address)
	if err != nil || !web(u) || u.Host == "" {
		return fmt.Errorf("%q is no web address", address)
	}
	if o.Timeout > 0 {
		var cancel context.CancelFunc
		ctx, cancel = context.WithTimeout(ctx, o.Timeout)
		defer cancel()
	}
	if err := copyTo(ctx, w, u, o); err != nil {
		return fmt.Errorf("fetch %s: %w", u.Redacted(), failure(ctx, o, err))
	}
	return nil
}

func copyTo(ctx context.Context, w io.Writer, u *url.URL, o Options) error {
	request, err := http.NewRequestWithContext(ctx, http.MethodGet, u.String(), nil)
	if err != nil {
		return err
	}
	client := &http.Client{Transport: o.Transport, CheckRedirect: redirect}
	if client.Transport == nil {
		usual, ok := http.DefaultTransport.(*http.Transport)
		if !ok {
			return errors.New("the HTTP transport of this program is not Go's own")
		}
		usual = usual.Clone()
		usual.DisableCompression = true // the bytes as they are
		usual.DisableKeepAlives = true
		client.Transport = usual
	}
	response, err := client.Do(request)
	if err != nil {
		return err
	}
	defer func() { _ = response.Body.Close() }() // it was read, or is not wanted
	if response.StatusCode != http.StatusOK {
		return fmt.Errorf("the server answered %s", response.Status)
	}
	body := io.Reader(response.Body)
	if o.Limit > 0 {
		if response.ContentLength > o.Limit {
			return fmt.Errorf("it has %d bytes, and may have %d", response.ContentLength, o.Limit)
		}
		body = io.LimitReader(body, o.Limit+1)
	}
	n, err := io.Copy(w, body)
	if err == nil && o.Limit > 0 && n > o.Limit {
		err = fmt.Errorf("it has more than the %d bytes that it may have", o.Limit)
	}
	return err
}

func redirect(request *http.Request, via []*http.Request) error {
	switch from := via[len(via)-1].URL; {
	case len(via) >= maxRedirects:
		return fmt.Errorf("it leads on and on: %d redirects", maxRedirects)
	case !web(request.URL):
		return fmt.Errorf("it leads to %s, which is no web address", request.URL.Redacted())
	case from.Scheme == "https" && request.URL.Scheme != "https":
		return fmt.Errorf("it leads from https to %s", request.URL.Redacted())
	}
	return nil
}

// failure says what a fetch failed of.
func failure(ctx context.Context, o Options, err error) error {
	if errors.Is(ctx.Err(), context.DeadlineExceeded) && o.Timeout > 0 {
		return fmt.Errorf("it took longer than %s: %w", o.Timeout, context.DeadlineExceeded)
	}
	// The library's own error has the address in it once more.
	var named *url.Error
	if errors.As(err, &named) {
		err = named.Err
	}
	return err
}
