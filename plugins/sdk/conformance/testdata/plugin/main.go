// Command plugin is a plugin without any library, which keeps to every rule of io.unmoor.Plugin unless it is
// told to break one: -break NAME. Its engine keeps a file for each container in the directory that -engine
// names: the ID is the file's name, the state its content.
package main

import (
	"bufio"
	"crypto/sha256"
	"encoding/json"
	"flag"
	"fmt"
	"log"
	"net"
	"os"
	"path/filepath"
	"strings"
	"sync/atomic"
	"syscall"
	"time"
)

type object = map[string]any

var (
	breakage = flag.String("break", "", "the rule to break, and how")
	engine   = flag.String("engine", "", "the engine's directory")
	socket   = flag.String("socket", "", "where to listen, if no socket is passed in")
	graph    = flag.String("graph", "", "the graph root of the engine's store")
	name     = flag.String("name", "raw", "the plugin's name")
	down     = flag.Bool("down", false, "the engine cannot answer")

	described, claimed atomic.Int64
	// idle are the connections without a whole message.
	idle atomic.Int64
)

// breaks is whether the plugin is to break in this way.
func breaks(what string) bool { return *breakage == what }

func main() {
	flag.Parse()
	l, err := listen()
	if err != nil {
		log.Fatal(err)
	}
	for {
		conn, err := l.Accept()
		if err != nil {
			log.Fatal(err)
		}
		idle.Add(1)
		go serve(conn)
	}
}

func listen() (net.Listener, error) {
	if os.Getenv("LISTEN_FDS") == "1" && os.Getenv("LISTEN_PID") == fmt.Sprint(os.Getpid()) {
		return net.FileListener(os.NewFile(3, "socket"))
	}
	syscall.Umask(0)
	return net.Listen("unix", *socket)
}

type call struct {
	Method     string          `json:"method"`
	Parameters json.RawMessage `json:"parameters"`
	More       bool            `json:"more"`
}

// peer is the connection of one caller.
type peer struct {
	conn net.Conn
	// denied is whether the caller may not call.
	denied bool
}

func (p *peer) send(o object) bool {
	text, err := json.Marshal(o)
	if err != nil {
		log.Fatal(err)
	}
	_, err = p.conn.Write(append(text, 0))
	return err == nil
}

func (p *peer) answer(parameters object) bool { return p.send(object{"parameters": parameters}) }

func (p *peer) refuse(name string, parameters object) bool {
	return p.send(object{"error": name, "parameters": parameters})
}

func serve(conn net.Conn) {
	defer conn.Close()
	p := &peer{conn: conn, denied: stranger(conn) && !breaks("peer")}
	in := bufio.NewReader(conn)
	for n := 0; ; n++ {
		for breaks("callers-idle") && idle.Load() > 20 {
			time.Sleep(time.Millisecond)
		}
		text, err := in.ReadBytes(0)
		if n == 0 {
			idle.Add(-1)
		}
		if err != nil {
			if len(text) > 1<<19 && breaks("message-cut") {
				log.Fatal("half a message")
			}
			return
		}
		var c call
		if err := json.Unmarshal(text[:len(text)-1], &c); err != nil || !strings.Contains(c.Method, ".") {
			if breaks("message-malformed") {
				log.Fatal("no message: ", err)
			}
			if breaks("message-malformed success") {
				p.answer(object{})
			}
			return
		}
		if n > 0 && breaks("calls-in-turn") {
			return
		}
		if !p.handle(c) {
			return
		}
	}
}

// stranger is whether the caller is neither root nor our own user.
func stranger(conn net.Conn) bool {
	raw, err := conn.(*net.UnixConn).SyscallConn()
	if err != nil {
		log.Fatal(err)
	}
	var cred *syscall.Ucred
	err2 := raw.Control(func(fd uintptr) {
		cred, err = syscall.GetsockoptUcred(int(fd), syscall.SOL_SOCKET, syscall.SO_PEERCRED)
	})
	return err != nil || err2 != nil || cred.Uid != 0 && int(cred.Uid) != os.Getuid()
}

func (p *peer) handle(c call) bool {
	at := strings.LastIndex(c.Method, ".")
	inter, method := c.Method[:at], c.Method[at+1:]
	switch {
	case inter == "org.varlink.service":
		return p.service(method, c)
	case inter != "io.unmoor.Plugin" && breaks("interface-unknown"):
		return p.refuse("org.varlink.service.InvalidParameter", object{"parameter": "method"})
	case inter != "io.unmoor.Plugin":
		return p.refuse("org.varlink.service.InterfaceNotFound", object{"interface": inter})
	case p.denied:
		return p.refuse("org.varlink.service.PermissionDenied", object{})
	}
	switch method {
	case "Describe":
		return p.describe(c)
	case "Claim", "Stop", "Remove", "Pins", "List", "Build":
		return p.act(method, c)
	}
	if breaks("method-unknown") {
		return p.answer(object{})
	}
	return p.refuse("org.varlink.service.MethodNotFound", object{"method": c.Method})
}

func (p *peer) service(method string, c call) bool {
	switch method {
	case "GetInfo":
		o := object{"vendor": "v", "product": "p", "version": "1", "url": "https://example.org", "interfaces": []string{"org.varlink.service", "io.unmoor.Plugin"}}
		if breaks("service-info") {
			o["interfaces"] = []string{"org.varlink.service"}
		}
		return p.answer(o)
	case "GetInterfaceDescription":
		text := "interface io.unmoor.Plugin\nmethod Describe() -> ()\nmethod Claim() -> ()\nmethod Stop() -> ()\nmethod Remove() -> ()\n"
		if breaks("service-description") {
			text = strings.Replace(text, "Claim", "Own", 1)
		}
		return p.answer(object{"description": text})
	}
	return p.refuse("org.varlink.service.MethodNotFound", object{"method": c.Method})
}

func (p *peer) describe(c call) bool {
	o := object{"name": *name, "engine": "Raw", "engineVersion": "1", "protocolVersions": []int{1},
		"capabilities": []string{"stop", "remove", "pin", "list", "build"}, "claimHints": []object{{"metadataKey": "raw"}}, "ready": !*down}
	n := described.Add(1)
	switch *breakage {
	case "describe-answers":
		return p.refuse("io.unmoor.Plugin.EngineUnavailable", object{"reason": "no"})
	case "describe-answers hang":
		select {}
	case "describe-form":
		delete(o, "ready")
	case "describe-form hint":
		o["claimHints"] = []object{{"metadataKeyAbsent": "raw"}}
	case "describe-version":
		o["protocolVersions"] = []int{2}
	case "describe-same":
		o["engine"] = fmt.Sprint("Raw ", n)
	case "describe-name":
		o["name"] = "else"
	case "no capabilities":
		o["capabilities"] = []string{}
	case "pins-answers":
		o["capabilities"] = []string{"stop", "remove", "list", "build"}
	case "list-answers":
		o["capabilities"] = []string{"stop", "remove", "pin", "build"}
	case "build-answers":
		o["capabilities"] = []string{"stop", "remove", "pin", "list"}
	case "container-hint":
		o["claimHints"] = []object{{"file": "raw.json"}}
	}
	if !c.More {
		return p.answer(o)
	}
	if breaks("describe-stream") {
		return p.answer(o)
	}
	if breaks("describe-stream closes") {
		p.send(object{"parameters": o, "continues": true})
		return false
	}
	if breaks("describe-aside") {
		if lock.Add(1) > 1 {
			time.Sleep(time.Hour)
		}
		defer lock.Add(-1)
	}
	if !p.send(object{"parameters": o, "continues": true}) {
		return false
	}
	var b [1]byte
	_, _ = p.conn.Read(b[:]) // until the caller has gone
	return false
}

var lock atomic.Int64

type container struct {
	ID       string `json:"id"`
	Metadata string `json:"metadata"`
	Layer    struct {
		Directory string `json:"directory"`
	} `json:"layer"`
}

type handle struct {
	Container container `json:"container"`
	Report    struct {
		Revision string `json:"revision"`
	} `json:"report"`
}

func (p *peer) act(method string, c call) bool {
	var in struct {
		ProtocolVersion *int64 `json:"protocolVersion"`
		Store           *struct {
			GraphRoot string `json:"graphRoot"`
		} `json:"store"`
		Containers []container `json:"containers"`
		Handles    []handle    `json:"handles"`
		Images     []container `json:"images"`
	}
	err := json.Unmarshal(c.Parameters, &in)
	switch {
	case strings.HasPrefix(string(c.Parameters), "["):
		return p.refuse("org.varlink.service.InvalidParameter", object{"parameter": "parameters"})
	case err != nil || in.ProtocolVersion == nil || in.Store == nil:
		switch *breakage {
		case "parameters-missing":
			return p.answer(object{})
		case "parameters-missing crash":
			log.Fatal("no parameters")
		case "parameters-missing hang":
			select {}
		}
		return p.refuse("org.varlink.service.InvalidParameter", object{"parameter": "parameters"})
	}
	if v := *in.ProtocolVersion; v != 1 {
		switch *breakage {
		case "version-unsupported":
			return p.refuse("org.varlink.service.InvalidParameter", object{"parameter": "protocolVersion"})
		case "version-unsupported list":
			return p.refuse("io.unmoor.Plugin.UnsupportedProtocolVersion", object{"supported": []int{1, 2}})
		}
		supported := []int{1}
		if breaks("describe-version") {
			supported = []int{2}
		}
		return p.refuse("io.unmoor.Plugin.UnsupportedProtocolVersion", object{"supported": supported})
	}
	if *down {
		return p.refuse("io.unmoor.Plugin.EngineUnavailable", object{"reason": "the engine is down"})
	}
	switch method {
	case "Claim":
		return p.claim(c, in.Store.GraphRoot, in.Containers)
	case "Pins":
		return p.pins(in.Images)
	case "List":
		return p.list(c)
	case "Build":
		switch *breakage {
		case "build-answers", "build-answers success":
			return p.answer(object{"lines": []string{}, "imageId": strings.Repeat("ab", 32)})
		case "build-answers reason":
			return p.refuse("io.unmoor.Plugin.BuildFailed", object{})
		}
		return p.refuse("io.unmoor.Plugin.BuildFailed", object{"reason": "there is no such directory"})
	}
	return p.work(strings.ToLower(method), c, in.Handles)
}

// record is the state that the engine has of a container.
func record(id string) (string, bool) {
	text, err := os.ReadFile(filepath.Join(*engine, id))
	if *engine == "" || err != nil {
		return "", false
	}
	return string(text), true
}

func revision(id string) string { return fmt.Sprintf("%.8x", sha256.Sum256([]byte(id))) }

func report(graphRoot string, c container) object {
	o := object{"id": c.ID, "ownership": "not_mine", "evidence": []object{}}
	if state, ok := record(c.ID); ok && (graphRoot == *graph || breaks("container-store")) {
		o["ownership"], o["state"], o["use"] = "mine", state, map[bool]string{true: "in_use", false: "idle"}[state == "running"]
		o["revision"] = revision(c.ID)
		switch *breakage {
		case "container-mine":
			o["ownership"] = "unknown"
		case "container-mine form":
			delete(o, "use")
		case "container-remove revision":
			o["revision"] = revision(c.ID + state)
		}
	}
	return o
}

func (p *peer) claim(c call, graphRoot string, containers []container) bool {
	reports := []object{}
	for _, c := range containers {
		reports = append(reports, report(graphRoot, c))
	}
	n := claimed.Add(1)
	switch *breakage {
	case "claim-answers":
		return p.refuse("io.unmoor.Plugin.EngineUnavailable", object{"reason": "no"})
	case "claim-answers reason":
		return p.refuse("io.unmoor.Plugin.EngineUnavailable", object{})
	case "claim-answers hang":
		select {}
	case "claim-answers error":
		return p.refuse("org.varlink.service.MethodNotImplemented", object{"method": "Claim"})
	case "claim-answers continues":
		if !c.More {
			return p.send(object{"parameters": object{"reports": reports}, "continues": true})
		}
	case "claim-form":
		for _, r := range reports {
			delete(r, "evidence")
		}
	case "claim-form word":
		for _, r := range reports {
			r["ownership"] = "perhaps"
		}
	case "claim-form null":
		for _, r := range reports {
			r["evidence"] = nil
		}
	case "claim-once missing":
		if len(reports) == 7 {
			reports = reports[1:]
		}
	case "claim-once doubled":
		if len(reports) == 7 {
			reports = append(reports, reports[0])
		}
	case "claim-once foreign":
		if len(reports) == 7 {
			reports = append(reports, object{"id": strings.Repeat("0", 64), "ownership": "not_mine", "evidence": []object{}})
		}
	case "claim-nothing":
		if len(reports) == 0 {
			return p.answer(object{"reports": nil})
		}
	case "claim-batch":
		if len(reports) > 1000 {
			return p.refuse("org.varlink.service.InvalidParameter", object{"parameter": "containers"})
		}
	case "claim-batch crash":
		if len(reports) > 1000 {
			log.Fatal("too much")
		}
	case "claim-stranger":
		if !strings.HasSuffix(graphRoot, "other/root") && len(reports) == 3 {
			own(reports)
		}
	case "claim-other-store":
		if strings.HasSuffix(graphRoot, "other/root") {
			own(reports)
		}
	case "claim-same":
		for _, r := range reports {
			r["displayName"] = fmt.Sprint("asked ", n)
		}
	case "claim-aside":
		if len(reports) == 20 {
			reports[0]["id"] = strings.Repeat("1", 64)
		}
	case "claim-aside hang":
		if len(reports) == 20 && lock.Add(1) > 3 {
			select {}
		}
	case "claim-metadata":
		for _, c := range containers {
			if len(c.Metadata) > 1<<20 {
				log.Fatal("too long a metadata")
			}
		}
	}
	if !c.More || len(reports) < 2 {
		return p.answer(object{"reports": reports})
	}
	if breaks("claim-more") {
		return p.send(object{"parameters": object{"reports": reports[:1]}, "continues": true}) &&
			p.answer(object{"reports": reports})
	}
	last := !breaks("claim-more end")
	return p.send(object{"parameters": object{"reports": reports[:1]}, "continues": true}) &&
		p.send(object{"parameters": object{"reports": reports[1:]}, "continues": !last})
}

func own(reports []object) {
	for _, r := range reports {
		r["ownership"], r["state"], r["use"] = "mine", "stopped", "idle"
	}
}

// work stops or removes.
func (p *peer) work(verb string, c call, handles []handle) bool {
	outcomes := []object{}
	for _, h := range handles {
		outcomes = append(outcomes, outcome(verb, h))
	}
	is := func(what string) bool { return breaks(verb + "-" + what) }
	switch {
	case is("answers"):
		return p.refuse("org.varlink.service.MethodNotImplemented", object{"method": verb})
	case is("form"):
		for _, o := range outcomes {
			o["problem"] = "not_owner"
			delete(o, "message")
		}
	case is("once missing") && len(outcomes) == 5 && !c.More:
		outcomes = outcomes[1:]
	case is("once doubled") && len(outcomes) == 5 && !c.More:
		outcomes = append(outcomes, outcomes[0])
	case is("nothing") && len(outcomes) == 0:
		return p.answer(object{})
	case is("gone") || is("gone storage"):
		for _, o := range outcomes {
			if is("gone") {
				o["problem"], o["message"] = "failed", "no such container"
			} else {
				o["storageRemoved"] = true
			}
		}
	case is("alive") && c.More && len(outcomes) == 2:
		time.Sleep(5 * time.Second)
	}
	if !c.More {
		return p.answer(object{"outcomes": outcomes})
	}
	if is("more") && len(outcomes) == 5 {
		return p.send(object{"parameters": object{"outcomes": outcomes[:2]}, "continues": true}) &&
			p.answer(object{"outcomes": outcomes[3:]})
	}
	if is("more end") && len(outcomes) == 5 {
		return p.send(object{"parameters": object{"outcomes": outcomes}, "continues": true})
	}
	if breaks("caller-leaves") && len(handles) == 100 {
		log.Fatal("an end")
	}
	return p.send(object{"parameters": object{"outcomes": []object{}}, "continues": true}) && p.answer(object{"outcomes": outcomes})
}

func outcome(verb string, h handle) object {
	id := h.Container.ID
	o := object{"id": id}
	problem := func(word, message string) object {
		o["problem"], o["message"] = word, message
		return o
	}
	state, known := record(id)
	if !known {
		if breaks("container-gone") && *engine != "" && h.Report.Revision != "" {
			return problem("failed", "no such container")
		}
		return o
	}
	path := filepath.Join(*engine, id)
	now := revision(id)
	if breaks("container-remove revision") {
		now = revision(id + state)
	}
	switch {
	case h.Report.Revision != now && !breaks("container-revision"):
		return problem("revision_mismatch", "it is another one")
	case verb == "stop" && state == "stopped" && breaks("container-stop-again"):
		return problem("failed", "it is stopped already")
	case verb == "stop":
		if h.Report.Revision != now {
			return o // as if it were done
		}
		if !breaks("container-stop") {
			write(path, "stopped")
		}
		return o
	case state == "running" && !breaks("container-in-use"):
		return problem("still_in_use", "it runs")
	case state == "running":
		return problem("failed", "no")
	case breaks("container-remove"):
		return problem("failed", "no")
	case breaks("container-remove record"):
		o["storageRemoved"] = true
		if err := os.RemoveAll(h.Container.Layer.Directory); err != nil {
			log.Fatal(err)
		}
		return o
	}
	if err := os.Remove(path); err != nil {
		log.Fatal(err)
	}
	if !breaks("container-remove storage") {
		if err := os.RemoveAll(h.Container.Layer.Directory); err != nil {
			log.Fatal(err)
		}
	}
	o["storageRemoved"] = true
	return o
}

func write(path, text string) {
	if err := os.WriteFile(path, []byte(text), 0o600); err != nil {
		log.Fatal(err)
	}
}

func (p *peer) pins(images []container) bool {
	pins := []object{}
	for _, i := range images {
		pins = append(pins, object{"id": i.ID, "pinned": "no"})
	}
	switch *breakage {
	case "no capabilities":
		return p.refuse("org.varlink.service.MethodNotImplemented", object{"method": "Pins"})
	case "pins-form":
		for _, p := range pins {
			p["pinned"] = false
		}
	case "pins-once":
		if len(pins) == 5 {
			pins = pins[2:]
		}
	case "pins-nothing":
		if len(pins) == 0 {
			pins = append(pins, object{"id": strings.Repeat("0", 64), "pinned": "no"})
		}
	case "pins-stranger":
		if len(pins) == 2 {
			pins[0]["pinned"] = "yes"
		}
	case "pins-answers error":
		return p.refuse("org.varlink.service.MethodNotFound", object{"method": "Pins"})
	}
	return p.answer(object{"pins": pins})
}

func (p *peer) list(c call) bool {
	reports := []object{{"id": strings.Repeat("2", 64), "ownership": "mine", "state": "stopped", "use": "idle", "evidence": []object{}}}
	switch *breakage {
	case "no capabilities":
		return p.refuse("org.varlink.service.MethodNotImplemented", object{"method": "List"})
	case "list-form":
		delete(reports[0], "state")
	case "list-mine":
		reports = append(reports, reports[0])
	case "list-mine other":
		reports[0]["ownership"] = "not_mine"
	case "list-more":
		if c.More {
			return p.send(object{"parameters": object{"reports": reports}, "continues": true})
		}
	}
	return p.answer(object{"reports": reports})
}
