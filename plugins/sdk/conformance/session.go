package conformance

import (
	"bufio"
	"bytes"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"net"
	"os"
	"time"
)

// maxMessage is what the protocol lets a message have.
const maxMessage = 16 << 20

// session is a connection that hides nothing of what comes in, and sends what it is told.
type session struct {
	conn net.Conn
	in   *bufio.Reader
}

func (p *probe) open() (*session, error) {
	conn, err := p.target.Dial(p.ctx)
	if err != nil {
		return nil, err
	}
	return &session{conn, bufio.NewReader(conn)}, nil
}

func (s *session) close() {
	_ = s.conn.Close() // nothing is sent any more
}

type request struct {
	Method     string `json:"method"`
	Parameters any    `json:"parameters,omitempty"`
	More       bool   `json:"more,omitempty"`
}

// send writes a call.
func (s *session) send(r request, within time.Duration) error {
	text, err := json.Marshal(r)
	if err != nil {
		return err
	}
	return s.write(append(text, 0), within)
}

func (s *session) write(text []byte, within time.Duration) error {
	if err := s.conn.SetWriteDeadline(time.Now().Add(within)); err != nil {
		return err
	}
	if _, err := s.conn.Write(text); err != nil {
		return fmt.Errorf("it does not read a call: %w", plain(err))
	}
	return nil
}

// reply is a message that came in.
type reply struct {
	Parameters json.RawMessage `json:"parameters"`
	Continues  bool            `json:"continues"`
	Error      string          `json:"error"`
}

func (r reply) String() string {
	switch {
	case r.Error != "":
		return fmt.Sprintf("the error %s %.200s", r.Error, r.Parameters)
	case r.Continues:
		return fmt.Sprintf("%.300s, and continues", r.Parameters)
	}
	return fmt.Sprintf("%.300s", r.Parameters)
}

var (
	errSilent = errors.New("no answer")
	errClosed = errors.New("it closed the connection")
)

// receive reads a message. The error is errSilent or errClosed where there is none.
func (s *session) receive(within time.Duration) (reply, error) {
	if err := s.conn.SetReadDeadline(time.Now().Add(within)); err != nil {
		return reply{}, err
	}
	var text []byte
	for {
		part, err := s.in.ReadSlice(0)
		text = append(text, part...)
		switch {
		case len(text) > maxMessage:
			return reply{}, fmt.Errorf("a reply has more than %d bytes", maxMessage)
		case errors.Is(err, bufio.ErrBufferFull):
			continue
		case errors.Is(err, os.ErrDeadlineExceeded):
			return reply{}, fmt.Errorf("%w within %s", errSilent, within)
		case err != nil:
			return reply{}, plain(err)
		}
		break
	}
	var r reply
	if err := json.Unmarshal(bytes.TrimSuffix(text, []byte{0}), &r); err != nil {
		return reply{}, fmt.Errorf("a reply is no Varlink message: %w: %.200q", err, text)
	}
	return r, nil
}

// plain says how a connection ended.
func plain(err error) error {
	if errors.Is(err, os.ErrDeadlineExceeded) {
		return errSilent
	}
	if errors.Is(err, io.EOF) || errors.Is(err, net.ErrClosed) || isReset(err) {
		return errClosed
	}
	return err
}

// call makes one call on a connection of its own.
func (p *probe) call(method string, parameters any, within time.Duration) (reply, error) {
	s, err := p.open()
	if err != nil {
		return reply{}, err
	}
	defer s.close()
	return s.call(method, parameters, within)
}

func (s *session) call(method string, parameters any, within time.Duration) (reply, error) {
	if err := s.send(request{Method: method, Parameters: parameters}, within); err != nil {
		return reply{}, err
	}
	r, err := s.receive(within)
	if err != nil {
		return reply{}, err
	}
	if r.Continues {
		return r, errors.New("its answer continues, though more was not asked for")
	}
	return r, nil
}

// stream makes a call with more on a connection of its own, and returns all replies. silence is what one
// may take, gap the longest that one took.
func (p *probe) stream(method string, parameters any, silence time.Duration) (all []reply, gap time.Duration, err error) {
	s, err := p.open()
	if err != nil {
		return nil, 0, err
	}
	defer s.close()
	if err := s.send(request{Method: method, Parameters: parameters, More: true}, p.options.Deadline); err != nil {
		return nil, 0, err
	}
	for last := time.Now(); ; last = time.Now() {
		r, err := s.receive(silence)
		gap = max(gap, time.Since(last))
		if err != nil {
			return all, gap, err
		}
		if all = append(all, r); !r.Continues {
			return all, gap, nil
		}
		if len(all) > 1<<16 {
			return all, gap, errors.New("its answer does not end")
		}
	}
}
