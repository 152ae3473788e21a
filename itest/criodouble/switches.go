package main

import (
	"context"
	"errors"
	"fmt"
	"math/rand/v2"
	"net"
	"os"
	"path"
	"slices"
	"strings"
	"sync"
	"time"

	"google.golang.org/grpc"
	"google.golang.org/grpc/codes"
	"google.golang.org/grpc/status"
	cri "k8s.io/cri-api/pkg/apis/runtime/v1"
)

// switches make the double misbehave, as its control file says at the moment.
type switches struct {
	control, log string
	mu           sync.Mutex // guards the log
}

// find returns the value of a switch that is on for a method.
func (s *switches) find(name, method string) (value string, on bool) {
	if s.control == "" {
		return "", false
	}
	text, err := os.ReadFile(s.control)
	if err != nil {
		return "", false // no file, no switch
	}
	for line := range strings.Lines(string(text)) {
		words := strings.Fields(line)
		if len(words) == 0 {
			continue
		}
		word, value, _ := strings.Cut(words[0], "=")
		// "creating" has to be named.
		if word == name && (slices.Contains(words[1:], method) || len(words) == 1 && method != "creating") {
			return value, true
		}
	}
	return "", false
}

// wait hangs or is slow, where that is switched on.
func (s *switches) wait(ctx context.Context, method string) error {
	if value, on := s.find("slow", method); on {
		delay, err := time.ParseDuration(value)
		if err != nil {
			return fmt.Errorf("the switch slow: %w", err)
		}
		select {
		case <-time.After(delay):
		case <-ctx.Done():
			return ctx.Err()
		}
	}
	for {
		if _, on := s.find("hang", method); !on {
			return nil
		}
		select {
		case <-ctx.Done():
			return ctx.Err()
		case <-time.After(20 * time.Millisecond): // it may be switched off
		}
	}
}

func (s *switches) intercept(ctx context.Context, request any, info *grpc.UnaryServerInfo, handler grpc.UnaryHandler) (any, error) {
	method := path.Base(info.FullMethod)
	s.note(method, request)
	if err := s.wait(ctx, method); err != nil {
		return nil, status.FromContextError(err).Err()
	}
	if text, on := s.find("fail", method); on {
		return nil, errors.New(strings.ReplaceAll(text, "_", " "))
	}
	answer, err := handler(ctx, request)
	if err != nil {
		return nil, err
	}
	if _, on := s.find("garbage", method); on {
		spoil(answer)
	}
	if _, on := s.find("unknown-state", method); on {
		estrange(answer)
	}
	if name, on := s.find("name", method); on {
		if v, ok := answer.(*cri.VersionResponse); ok {
			v.RuntimeName = name
		}
	}
	return answer, nil
}

// note logs a call with the ID that it is about.
func (s *switches) note(method string, request any) {
	if s.log == "" {
		return
	}
	id := ""
	switch r := request.(type) {
	case interface{ GetContainerId() string }:
		id = r.GetContainerId()
	case interface{ GetPodSandboxId() string }:
		id = r.GetPodSandboxId()
	}
	s.mu.Lock()
	defer s.mu.Unlock()
	f, err := os.OpenFile(s.log, os.O_CREATE|os.O_APPEND|os.O_WRONLY, 0o600)
	if err != nil {
		fmt.Fprintln(os.Stderr, "criodouble: log:", err)
		return
	}
	fmt.Fprintln(f, strings.TrimSpace(method+" "+id))
	f.Close()
}

// spoil makes an answer nonsense.
func spoil(answer any) {
	switch a := answer.(type) {
	case *cri.ListContainersResponse:
		a.Containers = append(a.Containers, a.Containers...)
		a.Containers = append(a.Containers, &cri.Container{Id: "../../etc", State: 99})
	case *cri.ListPodSandboxResponse:
		a.Items = append(a.Items, a.Items...)
		a.Items = append(a.Items, &cri.PodSandbox{Id: "\x00\n"})
	case *cri.ContainerStatusResponse:
		a.Status = &cri.ContainerStatus{Id: "another", State: cri.ContainerState_CONTAINER_EXITED}
	case *cri.PodSandboxStatusResponse:
		a.Status = nil
	case *cri.ImageStatusResponse:
		a.Image = &cri.Image{Id: "another"}
	case *cri.ImageFsInfoResponse:
		a.ImageFilesystems, a.ContainerFilesystems = nil, nil
	}
}

// estrange gives everything a state from the future.
func estrange(answer any) {
	switch a := answer.(type) {
	case *cri.ListContainersResponse:
		for _, c := range a.Containers {
			c.State = 42
		}
	case *cri.ListPodSandboxResponse:
		for _, p := range a.Items {
			p.State = 42
		}
	case *cri.ContainerStatusResponse:
		a.Status.State = 42
	case *cri.PodSandboxStatusResponse:
		a.Status.State = 42
	}
}

// babbler is a listener whose connections talk nonsense while that is switched on.
type babbler struct {
	net.Listener
	switches *switches
}

func (b babbler) Accept() (net.Conn, error) {
	for {
		c, err := b.Listener.Accept()
		if err != nil {
			return nil, err
		}
		if _, on := b.switches.find("bytes", ""); !on {
			return c, nil
		}
		noise := make([]byte, 4096)
		for i := range noise {
			noise[i] = byte(rand.IntN(256))
		}
		_, _ = c.Write(noise) // whether it is read is the caller's affair
		_ = c.Close()
	}
}

func notFound(format string, args ...any) error {
	return status.Errorf(codes.NotFound, format, args...)
}
