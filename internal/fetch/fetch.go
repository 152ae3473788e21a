// Package fetch reads what lies behind a web address, within bounds.
package fetch

import (
	"context"
	"errors"
	"fmt"
	"io"
	"net/http"
	"net/url"
	"strings"
	"time"
)

// Options bound a fetch.
type Options struct {
	// Timeout is how long all of it may take, to the last byte. Zero: as long as its context.
	Timeout time.Duration
	// Limit is how many bytes a server may announce. Zero: any number. What it sends without announcing it is
	// for the reader to count.
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

// Open asks for an address, and returns what comes of it. Anything but 200 is an error, and so is being sent
// from https to anything else. The caller closes it.
func Open(ctx context.Context, address string, o Options) (_ io.ReadCloser, err error) {
	u, err := url.Parse(address)
	if err != nil || !web(u) || u.Host == "" {
		return nil, fmt.Errorf("%q is no web address", address)
	}
	ctx, cancel := bounded(ctx, o.Timeout)
	defer func() {
		if err != nil {
			cancel()
		}
	}()
	request, err := http.NewRequestWithContext(ctx, http.MethodGet, address, nil)
	if err != nil {
		return nil, fmt.Errorf("fetch %s: %w", u.Redacted(), err)
	}
	client := &http.Client{Transport: o.Transport, CheckRedirect: redirect}
	if client.Transport == nil {
		usual, ok := http.DefaultTransport.(*http.Transport)
		if !ok {
			return nil, errors.New("the HTTP transport of this program is not Go's own")
		}
		usual = usual.Clone()
		usual.DisableCompression = true // the bytes as they are
		usual.DisableKeepAlives = true
		client.Transport = usual
	}
	response, err := client.Do(request)
	if err != nil {
		return nil, failure(ctx, u, o, err)
	}
	if response.StatusCode != http.StatusOK {
		_ = response.Body.Close() // nobody reads it
		return nil, fmt.Errorf("fetch %s: the server answered %s", u.Redacted(), response.Status)
	}
	if o.Limit > 0 && response.ContentLength > o.Limit {
		_ = response.Body.Close() // nobody reads it
		return nil, fmt.Errorf("fetch %s: it has %d bytes, and may have %d", u.Redacted(), response.ContentLength, o.Limit)
	}
	return &body{response.Body, func(err error) error { return failure(ctx, u, o, err) }, cancel}, nil
}

func bounded(ctx context.Context, timeout time.Duration) (context.Context, context.CancelFunc) {
	if timeout > 0 {
		return context.WithTimeout(ctx, timeout)
	}
	return context.WithCancel(ctx)
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
func failure(ctx context.Context, u *url.URL, o Options, err error) error {
	if errors.Is(ctx.Err(), context.DeadlineExceeded) && o.Timeout > 0 {
		return fmt.Errorf("fetch %s: it took longer than %s: %w", u.Redacted(), o.Timeout, context.DeadlineExceeded)
	}
	// The library's own error has the address in it once more.
	var named *url.Error
	if errors.As(err, &named) && strings.HasPrefix(named.URL, u.Scheme) {
		err = named.Err
	}
	return fmt.Errorf("fetch %s: %w", u.Redacted(), err)
}

// body is what a server sends.
type body struct {
	io.ReadCloser
	failure func(error) error
	cancel  context.CancelFunc
}

func (b *body) Read(p []byte) (int, error) {
	n, err := b.ReadCloser.Read(p)
	if err != nil && !errors.Is(err, io.EOF) {
		err = b.failure(err)
	}
	return n, err
}

func (b *body) Close() error {
	defer b.cancel()
	return b.ReadCloser.Close()
}
