package wire

import (
	"bytes"
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"strings"

	"github.com/varlink/go/varlink"
)

// served is a method that a server knows.
type served struct {
	*method
	errors     map[string]*shape // of its interface
	takesFiles bool
	own        func(parameters []byte) ([]byte, error) // of org.varlink.service: returns the reply
}

// register makes an interface's methods known, and hands it to the library.
func (s *Server) register(i Interface) error {
	d, err := parse(i.VarlinkGetDescription())
	if err != nil {
		return fmt.Errorf("read its description: %w", err)
	}
	if d.name != i.VarlinkGetName() {
		return fmt.Errorf("its description is of %s", d.name)
	}
	for _, m := range d.methods {
		takesFiles := s.options.TakesFiles != nil && s.options.TakesFiles(m.name)
		s.methods[m.name] = &served{method: m, errors: d.errors, takesFiles: takesFiles}
	}
	return s.library.RegisterInterface(i)
}

// registerService makes org.varlink.service known. The library's own leaves out what is empty though it
// is mandatory, calls an unknown interface a wrong parameter, and does not describe all errors.
func (s *Server) registerService(interfaces []Interface) error {
	d, err := parse(serviceDescription)
	if err != nil {
		return fmt.Errorf("register %s: %w", serviceName, err)
	}
	info := struct {
		Vendor     string   `json:"vendor"`
		Product    string   `json:"product"`
		Version    string   `json:"version"`
		URL        string   `json:"url"`
		Interfaces []string `json:"interfaces"`
	}{s.options.Vendor, s.options.Product, s.options.Version, s.options.URL, []string{serviceName}}
	descriptions := map[string]string{serviceName: serviceDescription}
	for _, i := range interfaces {
		info.Interfaces = append(info.Interfaces, i.VarlinkGetName())
		descriptions[i.VarlinkGetName()] = i.VarlinkGetDescription()
	}
	own := map[string]func([]byte) ([]byte, error){
		serviceName + ".GetInfo": func([]byte) ([]byte, error) { return encodeReply("", info) },
		serviceName + ".GetInterfaceDescription": func(parameters []byte) ([]byte, error) {
			var in varlink.InterfaceNotFound // which has the same parameter
			if err := json.Unmarshal(parameters, &in); err != nil {
				return nil, err
			}
			text, ok := descriptions[in.Interface]
			if !ok {
				return encodeReply(serviceName+".InterfaceNotFound", in)
			}
			return encodeReply("", struct {
				Description string `json:"description"`
			}{text})
		},
	}
	for _, m := range d.methods {
		s.methods[m.name] = &served{method: m, errors: d.errors, own: own[m.name]}
	}
	return nil
}

// request checks a call, and returns either what the library is to be handed or the answer. Whoever sets
// upgrade is told no: a reply without an error would hand over the connection.
func (m *served) request(in call) (request, answer []byte, err error) {
	if in.upgrade {
		answer, err = encodeReply(invalidParameter, varlink.InvalidParameter{Parameter: "upgrade"})
		return nil, answer, err
	}
	parameters := in.parameters
	if parameters == nil { // or null: the same, but not to the library
		parameters = []byte("{}")
	}
	request = make([]byte, 0, len(parameters)+len(m.name)+len(`{"method":"","parameters":,"oneway":true}`))
	request = append(append(append(request, `{"method":"`...), m.name...), `","parameters":`...)
	begin := len(request)
	request, err = check(request, parameters, m.in, false)
	var wrong *fieldError
	switch {
	case errors.As(err, &wrong):
		answer, err = encodeReply(invalidParameter, varlink.InvalidParameter{Parameter: wrong.path})
		return nil, answer, err
	case err != nil:
		return nil, nil, err
	case m.own != nil:
		answer, err = m.own(request[begin:])
		return nil, answer, err
	case in.more:
		request = append(request, `,"more":true`...)
	case in.oneway:
		request = append(request, `,"oneway":true`...)
	}
	return append(request, '}'), nil, nil
}

// mended returns a reply without nulls where there must be none.
func (m *served) mended(message []byte) ([]byte, error) {
	if !bytes.Contains(message, []byte("null")) {
		return message, nil
	}
	r, err := readReply(message[:len(message)-1])
	if err != nil {
		return nil, fmt.Errorf("read our own reply: %w", err)
	}
	s := m.out
	if r.error != nil {
		s = m.errors[string(r.error)]
	}
	if s == nil || r.parameters == nil {
		return message, nil
	}
	parameters, err := mend(r.parameters, s)
	if err != nil {
		return nil, fmt.Errorf("read our own reply: %w", err)
	}
	b, err := json.Marshal(struct {
		Parameters json.RawMessage `json:"parameters"`
		Continues  bool            `json:"continues,omitempty"`
		Error      string          `json:"error,omitempty"`
	}{parameters, r.continues, string(r.error)})
	return append(b, 0), err
}

// find returns the method, or the reply that there is none.
func (s *Server) find(name []byte) (*served, []byte, error) {
	if m := s.methods[string(name)]; m != nil {
		return m, nil, nil
	}
	full := shown(name)
	i := strings.LastIndexByte(string(name), '.')
	if i <= 0 {
		b, err := encodeReply(invalidParameter, varlink.InvalidParameter{Parameter: "method"})
		return nil, b, err
	}
	prefix := string(name[:i+1])
	for known := range s.methods {
		if strings.HasPrefix(known, prefix) && strings.IndexByte(known[len(prefix):], '.') < 0 {
			b, err := encodeReply(serviceName+".MethodNotFound", varlink.MethodNotFound{Method: full})
			return nil, b, err
		}
	}
	b, err := encodeReply(serviceName+".InterfaceNotFound", varlink.InterfaceNotFound{Interface: shown(name[:i])})
	return nil, b, err
}

// ReplyPermissionDenied answers that the caller may not call this method, or not so. The library refuses
// to send this error, as it does all of org.varlink.service that it does not know.
func ReplyPermissionDenied(ctx context.Context, c varlink.Call) error {
	return replyError(ctx, c, serviceName+".PermissionDenied", nil)
}

// ReplyExpectedMore answers that the method wants to be called with more.
func ReplyExpectedMore(ctx context.Context, c varlink.Call) error {
	return replyError(ctx, c, serviceName+".ExpectedMore", nil)
}

// ReplyInvalidParameter answers that the named parameter does not do.
func ReplyInvalidParameter(ctx context.Context, c varlink.Call, parameter string) error {
	return replyError(ctx, c, invalidParameter, varlink.InvalidParameter{Parameter: parameter})
}

func replyError(ctx context.Context, c varlink.Call, name string, parameters any) error {
	if c.IsOneway() {
		return nil
	}
	b, err := encodeReply(name, parameters)
	if err != nil {
		return err
	}
	_, err = c.Conn.Write(ctx, b)
	return err
}

// encodeReply makes a message of a final reply; name is empty where it is no error.
func encodeReply(name string, parameters any) ([]byte, error) {
	b, err := json.Marshal(struct {
		Parameters any    `json:"parameters,omitempty"`
		Error      string `json:"error,omitempty"`
	}{parameters, name})
	return append(b, 0), err
}

const (
	serviceName      = "org.varlink.service"
	invalidParameter = serviceName + ".InvalidParameter"
)

// serviceDescription is UAPI.20's.
const serviceDescription = `# The Varlink Service Interface should be provided by every varlink service.
# It describes the service and the interfaces it implements.
interface org.varlink.service

# Get a list of all the interfaces a service provides and information
# about the implementation.
method GetInfo() -> (
  vendor: string,
  product: string,
  version: string,
  url: string,
  interfaces: []string
)

# Get the description of an interface that is implemented by this service.
method GetInterfaceDescription(interface: string) -> (description: string)

# The requested interface was not found.
error InterfaceNotFound (interface: string)

# The requested method was not found
error MethodNotFound (method: string)

# The interface defines the requested method, but the service does not
# implement it.
error MethodNotImplemented (method: string)

# One of the passed parameters is invalid.
error InvalidParameter (parameter: string)

# Client is denied access
error PermissionDenied ()

# Method is expected to be called with 'more' set to true, but wasn't
error ExpectedMore ()

# Method is expected to be called with 'upgrade' set to true, but wasn't
error ExpectedUpgrade ()
`
