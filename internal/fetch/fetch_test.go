package fetch

import (
	"context"
	"errors"
	"io"
	"net/http"
	"net/http/httptest"
	"strings"
	"testing"
	"time"
)

func TestFetch(t *testing.T) {
	mux := http.NewServeMux()
	handle := func(path string, f http.HandlerFunc) { mux.HandleFunc(path, f) }
	handle("/root.tar", func(w http.ResponseWriter, r *http.Request) {
		if r.Header.Get("Accept-Encoding") != "" {
			t.Error("it asks for a compression")
		}
		_, _ = io.WriteString(w, "content")
	})
	handle("/moved", func(w http.ResponseWriter, r *http.Request) { http.Redirect(w, r, "/root.tar", http.StatusFound) })
	handle("/loop", func(w http.ResponseWriter, r *http.Request) { http.Redirect(w, r, "/loop", http.StatusFound) })
	handle("/file", func(w http.ResponseWriter, r *http.Request) {
		http.Redirect(w, r, "file:///etc/passwd", http.StatusFound)
	})
	handle("/gone", func(w http.ResponseWriter, _ *http.Request) { http.Error(w, "no", http.StatusNotFound) })
	handle("/partial", func(w http.ResponseWriter, _ *http.Request) { w.WriteHeader(http.StatusPartialContent) })
	handle("/short", func(w http.ResponseWriter, _ *http.Request) {
		w.Header().Set("Content-Length", "100")
		_, _ = io.WriteString(w, "content")
	})
	handle("/chunks", func(w http.ResponseWriter, _ *http.Request) {
		for range 3 {
			_, _ = io.WriteString(w, "content")
			w.(http.Flusher).Flush()
		}
	})
	stop := make(chan struct{})
	handle("/slow", func(w http.ResponseWriter, r *http.Request) {
		_, _ = io.WriteString(w, "con")
		w.(http.Flusher).Flush()
		select {
		case <-stop:
		case <-r.Context().Done():
		}
	})
	handle("/silent", func(_ http.ResponseWriter, r *http.Request) {
		select {
		case <-stop:
		case <-r.Context().Done():
		}
	})
	server := httptest.NewServer(mux)
	t.Cleanup(server.Close)
	t.Cleanup(func() { close(stop) })
	address := func(path string) string { return strings.Replace(server.URL, "://", "://user:secret@", 1) + path }
	for _, test := range []struct {
		path    string
		options Options
		// want is the content, wrong a part of the error.
		want, wrong string
	}{
		{"/root.tar", Options{}, "content", ""},
		{"/root.tar", Options{Limit: 7, Timeout: time.Minute}, "content", ""},
		{"/moved", Options{}, "content", ""},
		{"/root.tar", Options{Limit: 6}, "", "it has 7 bytes, and may have 6"},
		{"/chunks", Options{Limit: 21}, "contentcontentcontent", ""},
		{"/chunks", Options{Limit: 20}, "", "it has more than the 20 bytes that it may have"},
		{"/loop", Options{}, "", "it leads on and on: 10 redirects"},
		{"/file", Options{}, "", "it leads to file:///etc/passwd, which is no web address"},
		{"/gone", Options{}, "", "the server answered 404 Not Found"},
		{"/partial", Options{}, "", "the server answered 206"},
		{"/short", Options{}, "", "unexpected EOF"},
		{"/slow", Options{Timeout: 50 * time.Millisecond}, "", "it took longer than 50ms"},
		{"/silent", Options{Timeout: 50 * time.Millisecond}, "", "it took longer than 50ms"},
	} {
		got, err := read(t.Context(), address(test.path), test.options)
		if test.wrong == "" && (err != nil || got != test.want) {
			t.Errorf("%s: %q, %v", test.path, got, err)
		}
		if test.wrong != "" && (err == nil || !strings.Contains(err.Error(), test.wrong)) {
			t.Errorf("%s: %q, %v, and wanted %q", test.path, got, err, test.wrong)
		}
		if err != nil && strings.Contains(err.Error(), "secret") {
			t.Errorf("%s: the password is told: %v", test.path, err)
		}
	}
	ctx, cancel := context.WithCancel(t.Context())
	time.AfterFunc(20*time.Millisecond, cancel)
	if _, err := read(ctx, address("/slow"), Options{}); !errors.Is(err, context.Canceled) {
		t.Errorf("cancelled: %v", err)
	}
}

func read(ctx context.Context, address string, o Options) (string, error) {
	var got strings.Builder
	err := Copy(ctx, &got, address, o)
	return got.String(), err
}

func TestFetchKeepsToTLS(t *testing.T) {
	plain := httptest.NewServer(http.HandlerFunc(func(http.ResponseWriter, *http.Request) {}))
	t.Cleanup(plain.Close)
	server := httptest.NewTLSServer(http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		http.Redirect(w, r, plain.URL, http.StatusFound)
	}))
	t.Cleanup(server.Close)
	if _, err := read(t.Context(), server.URL, Options{Transport: server.Client().Transport}); err == nil || !strings.Contains(err.Error(), "it leads from https to") {
		t.Errorf("from https to http: %v", err)
	}
	if _, err := read(t.Context(), server.URL, Options{}); err == nil || !strings.Contains(err.Error(), "certificate") {
		t.Errorf("a certificate of nobody's: %v", err)
	}
}

func TestIsAddress(t *testing.T) {
	for text, want := range map[string]bool{
		"http://example.com/a.tar": true, "https://example.com": true, "HTTPS://example.com/": true,
		"file:///etc/passwd": false, "http:": false, "/a/b": false, "a.tar": false, "ftp://example.com/a": false, "": false, "-": false, "http:/a": false, "::": false,
	} {
		if got := IsAddress(text); got != want {
			t.Errorf("%q: %v", text, got)
		}
		if _, err := read(t.Context(), text, Options{Timeout: time.Nanosecond}); err == nil {
			t.Errorf("%q was fetched", text)
		}
	}
}
