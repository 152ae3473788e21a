package podman

import (
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"net"
	"net/http"
	"net/url"
	"path/filepath"
	"runtime"
	"slices"
	"strconv"
	"strings"
	"sync"
	"time"

	"github.com/unmoor/unmoor/core"
)

// api talks to Podman through its REST API on a unix socket ("podman system service").
type api struct {
	client *http.Client
	socket string
}

// apiBase: version 4.0.0 of the libpod API is served by Podman 4 and 5. The host is a dummy.
const apiBase = "http://podman/v4.0.0/libpod"

// apiConnections is how many requests run side by side, but for stops and removals.
const apiConnections = 8

func newAPI(address string) (*api, error) {
	path, ok := strings.CutPrefix(address, "unix:")
	if ok && strings.HasPrefix(path, "//") {
		path = path[2:]
	}
	if !ok || !filepath.IsAbs(path) {
		return nil, fmt.Errorf("podman's address is unix:/path/to/socket, not %q", address)
	}
	var dialer net.Dialer
	transport := &http.Transport{
		DialContext: func(ctx context.Context, _, _ string) (net.Conn, error) {
			return dialer.DialContext(ctx, "unix", path)
		},
		MaxIdleConnsPerHost: apiConnections,
		DisableCompression:  true,
	}
	return &api{client: &http.Client{Transport: transport}, socket: path}, nil
}

// apiError is an answer with a status of 400 or more.
type apiError struct {
	what    string
	status  int
	Cause   string `json:"cause"`
	Message string `json:"message"`
}

func (e *apiError) Error() string {
	message := e.Message
	if message == "" {
		message = e.Cause
	}
	return fmt.Sprintf("%s: %s", e.what, shorten(strings.Join(strings.Fields(message), " ")))
}

// absent is whether Podman said that the thing is not there. A 404 with another body comes from
// something that is no Podman.
func (e *apiError) absent(cause string) bool {
	return e.status == http.StatusNotFound && e.Cause == cause
}

// call sends a request and reads the answer. what says in an error what was tried.
func (a *api) call(ctx context.Context, method, path string, query url.Values, what string) ([]byte, error) {
	target := apiBase + path
	if len(query) > 0 {
		target += "?" + query.Encode()
	}
	request, err := http.NewRequestWithContext(ctx, method, target, nil)
	if err != nil {
		return nil, fmt.Errorf("%s: %w", what, err)
	}
	response, err := a.client.Do(request)
	if err != nil {
		return nil, absentOr(fmt.Errorf("%s on %s: %w", what, a.socket, err))
	}
	defer func() { _ = response.Body.Close() }() // only read from
	body, err := io.ReadAll(io.LimitReader(response.Body, maxOutput+1))
	if err != nil {
		return nil, fmt.Errorf("%s on %s: %w", what, a.socket, err)
	}
	if len(body) > maxOutput {
		return nil, fmt.Errorf("%s on %s: %w", what, a.socket, errTooLong)
	}
	if response.StatusCode >= http.StatusBadRequest {
		e := &apiError{what: what, status: response.StatusCode}
		if json.Unmarshal(body, e) != nil || e.Cause == "" {
			e.Message = fmt.Sprintf("status %s: %.200q", response.Status, body)
		}
		return nil, e
	}
	return body, nil
}

type apiInfo struct {
	Store   struct{ GraphRoot, RunRoot string } `json:"store"`
	Version struct{ Version string }            `json:"version"`
}

func parseInfo(text []byte) (apiInfo, error) {
	var info apiInfo
	if err := json.Unmarshal(text, &info); err != nil {
		return apiInfo{}, fmt.Errorf("read what podman says of itself: %w", err)
	}
	if info.Store.GraphRoot == "" {
		return apiInfo{}, errors.New("read what podman says of itself: it names no store")
	}
	return info, nil
}

func (a *api) info(ctx context.Context) (apiInfo, error) {
	body, err := a.call(ctx, http.MethodGet, "/info", nil, "ask podman about itself")
	if err != nil {
		return apiInfo{}, err
	}
	return parseInfo(body)
}

func (a *api) version(ctx context.Context) (string, error) {
	info, err := a.info(ctx)
	return info.Version.Version, err
}

func (a *api) serves(ctx context.Context, store core.StoreInfo) error {
	info, err := a.info(ctx)
	if err != nil {
		return err
	}
	if !samePath(info.Store.GraphRoot, store.GraphRoot) {
		return fmt.Errorf("podman at unix:%s serves another store (%s): give the address of the one that serves %s",
			a.socket, info.Store.GraphRoot, store.GraphRoot)
	}
	return nil
}

// samePath compares paths with their symbolic links resolved where that can be done.
func samePath(a, b string) bool {
	resolve := func(path string) string {
		if real, err := filepath.EvalSymlinks(path); err == nil {
			return real
		}
		return filepath.Clean(path)
	}
	return resolve(a) == resolve(b)
}

const causeNoContainer = "no such container"

func (a *api) inspect(ctx context.Context, _ core.StoreInfo, ids []core.ContainerID) (inspection, error) {
	all := newInspection()
	var mu sync.Mutex
	failed := each(ids, apiConnections, func(id core.ContainerID) error {
		body, err := a.call(ctx, http.MethodGet, "/containers/"+string(id)+"/json", nil, "inspect container "+id.Short())
		var answer *apiError
		said := errors.As(err, &answer)
		if err == nil {
			r, err := parseRecord(body)
			if err != nil {
				return err
			}
			mu.Lock()
			defer mu.Unlock()
			all.records[r.ID] = r
			return nil
		}
		mu.Lock()
		defer mu.Unlock()
		switch {
		case said && answer.absent(causeNoContainer):
			all.absent[id] = true
		case said && answer.Cause != "":
			all.broken[id] = err
		case errors.Is(context.Cause(ctx), errSlow):
			all.broken[id] = fmt.Errorf("inspect container %s: %w", id.Short(), errSlow)
		default:
			return err
		}
		return nil
	})
	for _, err := range failed {
		return inspection{}, err
	}
	return all, nil
}

func (a *api) imageID(ctx context.Context, _ core.StoreInfo, name string) (core.ImageID, error) {
	body, err := a.call(ctx, http.MethodGet, "/images/"+url.PathEscape(name)+"/json", nil, "inspect image "+name)
	if err != nil {
		var answer *apiError
		if errors.As(err, &answer) && answer.absent("image not known") {
			return "", fmt.Errorf("%w: %s", errNoImage, name)
		}
		return "", err
	}
	var image struct{ ID string }
	if err := json.Unmarshal(body, &image); err != nil {
		return "", fmt.Errorf("read what podman says of image %s: %w", name, err)
	}
	return parseImageID([]byte(image.ID))
}

func (a *api) imageVolumes(ctx context.Context, _ core.StoreInfo) ([]volume, error) {
	body, err := a.call(ctx, http.MethodGet, "/volumes/json", nil, "list volumes")
	if err != nil {
		return nil, err
	}
	return parseVolumes(body)
}

func (a *api) pods(ctx context.Context, _ core.StoreInfo) ([]pod, error) {
	body, err := a.call(ctx, http.MethodGet, "/pods/json", nil, "list pods")
	if err != nil {
		return nil, err
	}
	return parsePods(body)
}

func (a *api) unpause(ctx context.Context, _ core.StoreInfo, ids []core.ContainerID) {
	// The stop that follows reports what is still paused.
	_ = each(ids, apiConnections, func(id core.ContainerID) error {
		_, err := a.call(ctx, http.MethodPost, "/containers/"+string(id)+"/unpause", nil, "unpause")
		return err
	})
}

// stop: the service stops no more containers at once than it has workers, three a processor and one
// (4.3.1, 5.4.2). Those beyond get their polite signal at once, so that their grace period runs
// while they wait for a worker. A container that Podman would start again has to be stopped in the
// first place.
func (a *api) stop(ctx context.Context, _ core.StoreInfo, records []record, grace time.Duration) map[core.ContainerID]error {
	workers := 3*runtime.NumCPU() + 1
	records = slices.Clone(records)
	slices.SortStableFunc(records, func(x, y record) int {
		switch {
		case x.restarts() == y.restarts():
			return 0
		case x.restarts():
			return -1
		}
		return 1
	})
	began := time.Now()
	var early []core.ContainerID
	signals := make(map[core.ContainerID]string)
	for i, r := range records {
		if i >= workers && !r.restarts() && grace > 0 {
			early = append(early, r.ID)
			signals[r.ID] = r.stopSignal()
		}
	}
	unsignaled := each(early, apiConnections, func(id core.ContainerID) error {
		query := url.Values{"signal": {signals[id]}}
		_, err := a.call(ctx, http.MethodPost, "/containers/"+string(id)+"/kill", query, "signal")
		return err
	})
	return each(idsOf(records), workers, func(id core.ContainerID) error {
		left := grace
		if _, sent := signals[id]; sent && unsignaled[id] == nil {
			left -= time.Since(began)
		}
		// 304: it is stopped already.
		query := url.Values{"timeout": {strconv.Itoa(seconds(left))}}
		_, err := a.call(ctx, http.MethodPost, "/containers/"+string(id)+"/stop", query, "stop")
		return unlessAbsent(err, causeNoContainer)
	})
}

func (a *api) remove(ctx context.Context, _ core.StoreInfo, ids []core.ContainerID) (map[core.ContainerID]bool, map[core.ContainerID]error) {
	removed := make(map[core.ContainerID]bool)
	var mu sync.Mutex
	failed := each(ids, removers(), func(id core.ContainerID) error {
		_, err := a.call(ctx, http.MethodDelete, "/containers/"+string(id), nil, "remove")
		if err != nil {
			return unlessAbsent(err, causeNoContainer)
		}
		mu.Lock()
		defer mu.Unlock()
		removed[id] = true
		return nil
	})
	return removed, failed
}

func (a *api) removePod(ctx context.Context, _ core.StoreInfo, id string) error {
	_, err := a.call(ctx, http.MethodDelete, "/pods/"+id, nil, "remove pod")
	return unlessAbsent(err, "no such pod")
}

func (a *api) removeVolume(ctx context.Context, _ core.StoreInfo, name string) error {
	_, err := a.call(ctx, http.MethodDelete, "/volumes/"+url.PathEscape(name), nil, "remove volume "+name)
	return unlessAbsent(err, "no such volume")
}

func unlessAbsent(err error, cause string) error {
	var answer *apiError
	if errors.As(err, &answer) && answer.absent(cause) {
		return nil
	}
	return err
}

// each calls f for every ID, several at once, and collects the errors.
func each(ids []core.ContainerID, atOnce int, f func(core.ContainerID) error) map[core.ContainerID]error {
	failed := make(map[core.ContainerID]error)
	var mu sync.Mutex
	var wg sync.WaitGroup
	slots := make(chan struct{}, atOnce)
	for _, id := range ids {
		slots <- struct{}{}
		wg.Go(func() {
			defer func() { <-slots }()
			if err := f(id); err != nil {
				mu.Lock()
				defer mu.Unlock()
				failed[id] = err
			}
		})
	}
	wg.Wait()
	return failed
}
