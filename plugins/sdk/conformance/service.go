package conformance

import (
	"errors"
	"fmt"
	"slices"
	"strings"

	"github.com/unmoor/unmoor/internal/protocol"
)

const varlinkService = "org.varlink.service"

func serviceRules() []rule {
	return []rule{
		{"service-info", "org.varlink.service.GetInfo says who it is and that it serves io.unmoor.Plugin", nil, serviceInfo},
		{"service-description", "GetInterfaceDescription gives io.unmoor.Plugin with its methods", nil, serviceDescription},
		{"interface-unknown", "A call of an interface that it does not have is refused with InterfaceNotFound", nil, interfaceUnknown},
		{"method-unknown", "A call of a method that it does not have is refused with MethodNotFound", nil, methodUnknown},
		{"calls-in-turn", "A connection takes one call after another, errors among them", []string{"describe-answers"}, callsInTurn},
		{"version-unsupported", "A revision that it does not speak is refused with UnsupportedProtocolVersion and those that it does",
			[]string{"describe-answers"}, versionUnsupported},
		{"parameters-missing", "A call without its parameters is refused", nil, parametersMissing},
	}
}

func serviceInfo(p *probe) error {
	r, err := p.call(varlinkService+".GetInfo", nil, p.options.Deadline)
	if err != nil {
		return err
	}
	info := looseOf(r.Parameters)
	for _, key := range []string{"vendor", "product", "version", "url"} {
		if _, ok := info[key].(string); !ok {
			return fmt.Errorf("%s is missing in %s", key, r)
		}
	}
	if !slices.Contains(info.texts("interfaces"), protocol.Interface) {
		return fmt.Errorf("%s is not among the interfaces of %s", protocol.Interface, r)
	}
	return nil
}

func serviceDescription(p *probe) error {
	r, err := p.call(varlinkService+".GetInterfaceDescription", map[string]string{"interface": protocol.Interface}, p.options.Deadline)
	if err != nil {
		return err
	}
	description := looseOf(r.Parameters).text("description")
	for _, want := range []string{"interface " + protocol.Interface, "method Describe", "method Claim", "method Stop", "method Remove"} {
		if !strings.Contains(description, want) {
			return fmt.Errorf("%q is not in %s", want, r)
		}
	}
	return nil
}

func (p *probe) refused(method, want string) error {
	r, err := p.call(method, struct{}{}, p.options.Deadline)
	if err != nil {
		return err
	}
	if r.Error != varlinkService+"."+want {
		return fmt.Errorf("%s is answered with %s", method, r)
	}
	return nil
}

func interfaceUnknown(p *probe) error {
	return p.refused("io.unmoor.NoSuch.Describe", "InterfaceNotFound")
}
func methodUnknown(p *probe) error { return p.refused(protocol.Interface+".NoSuch", "MethodNotFound") }

func callsInTurn(p *probe) error {
	s, err := p.open()
	if err != nil {
		return err
	}
	defer s.close()
	for i, method := range []string{protocol.MethodDescribe, protocol.Interface + ".NoSuch", protocol.MethodDescribe, protocol.MethodDescribe} {
		r, err := s.call(method, nil, p.options.Deadline)
		if err != nil {
			return fmt.Errorf("call %d of a connection, %s: %w", i+1, method, err)
		}
		if r.Error != "" && method == protocol.MethodDescribe {
			return fmt.Errorf("call %d of a connection, %s, is answered with %s", i+1, method, r)
		}
	}
	return nil
}

func versionUnsupported(p *probe) error {
	spoken := p.said.numbers("protocolVersions")
	const strange = 1 << 20
	for _, r := range p.acts(strange) {
		got, err := p.call(r.Method, r.Parameters, p.options.Deadline)
		if err != nil {
			return fmt.Errorf("%s: %w", r.Method, err)
		}
		if got.Error != protocol.ErrorUnsupportedVersion {
			return fmt.Errorf("%s of revision %d is answered with %s", r.Method, strange, got)
		}
		supported := looseOf(got.Parameters).numbers("supported")
		slices.Sort(supported)
		slices.Sort(spoken)
		if !slices.Equal(supported, spoken) {
			return fmt.Errorf("%s says that it supports %v, and Describe says %v", r.Method, supported, spoken)
		}
	}
	return nil
}

// acts are calls of all that the plugin offers, about nothing.
func (p *probe) acts(version int64) []request {
	store := p.wireStore(p.store)
	all := []request{{Method: protocol.MethodClaim, Parameters: protocol.ClaimIn{ProtocolVersion: version, Store: store, Containers: none[container]()}}}
	if p.offers("stop") == nil {
		all = append(all, request{Method: protocol.MethodStop, Parameters: protocol.StopIn{ProtocolVersion: version, Store: store, Handles: none[handle]()}})
	}
	if p.offers("remove") == nil {
		all = append(all, request{Method: protocol.MethodRemove, Parameters: protocol.RemoveIn{ProtocolVersion: version, Store: store, Handles: none[handle]()}})
	}
	if p.offers("pin") == nil {
		all = append(all, request{Method: protocol.MethodPins, Parameters: protocol.PinsIn{ProtocolVersion: version, Store: store, Images: none[image]()}})
	}
	if p.offers("list") == nil {
		all = append(all, request{Method: protocol.MethodList, Parameters: protocol.ListIn{ProtocolVersion: version, Store: store}})
	}
	return all
}

// parametersMissing takes any error, and a connection that is closed.
func parametersMissing(p *probe) error {
	for _, r := range p.acts(protocol.Version) {
		for _, parameters := range []any{nil, struct{}{}, map[string]any{"protocolVersion": protocol.Version}, map[string]any{"protocolVersion": nil}} {
			got, err := p.call(r.Method, parameters, p.options.Deadline)
			if errors.Is(err, errClosed) {
				continue
			}
			if err != nil {
				return fmt.Errorf("%s with the parameters %s: %w", r.Method, asText(parameters), err)
			}
			if got.Error == "" {
				return fmt.Errorf("%s with the parameters %s is answered with %s", r.Method, asText(parameters), got)
			}
		}
	}
	return nil
}
