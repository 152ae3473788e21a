package conformance

import (
	"crypto/rand"
	"encoding/hex"
	"encoding/json"
	"errors"
	"fmt"
	"path/filepath"
	"time"

	"github.com/unmoor/unmoor/core"
	"github.com/unmoor/unmoor/internal/protocol"
	iounmoorplugin "github.com/unmoor/unmoor/varlink/plugin"
)

type (
	store     = iounmoorplugin.Store
	container = iounmoorplugin.Container
	handle    = iounmoorplugin.Handle
	image     = iounmoorplugin.Image
)

// none is a list that JSON has as [].
func none[T any]() []T { return []T{} }

// sent is what From makes of what was made here, or checked by the caller: it can be sent.
func sent[M, W any](m M, from func(M) (W, error)) W {
	w, err := from(m)
	if err != nil {
		panic(fmt.Sprintf("conformance: %v", err))
	}
	return w
}

func (p *probe) wireStore(s core.StoreInfo) store { return sent(s, protocol.FromStore) }

func randomID() string {
	b := make([]byte, 32)
	_, _ = rand.Read(b) // which never fails
	return hex.EncodeToString(b)
}

// madeUp are containers that nobody has: no engine knows their IDs, nothing lies where their directories
// would be, and no hint fits their metadata.
func madeUp(s core.StoreInfo, n int) []container {
	all := none[container]()
	for range n {
		id, layer := randomID(), randomID()
		home := filepath.Join(s.GraphRoot, s.GraphDriver, "dir", layer)
		all = append(all, sent(core.Container{
			ID: core.ContainerID(id), Names: []string{"made-up-" + id[:12]}, ImageID: core.ImageID(randomID()), LayerID: core.LayerID(layer),
			Created: time.Now().Add(-24 * time.Hour), Metadata: `{"made-up-by":"unmoor plugin check"}`, BigDataNames: []string{},
			Directory:    filepath.Join(s.GraphRoot, s.GraphDriver+"-containers", id, "userdata"),
			RunDirectory: filepath.Join(s.RunRoot, s.GraphDriver+"-containers", id, "userdata"),
			Layer:        core.Layer{ID: core.LayerID(layer), Directory: home, MountPoint: home, Driver: s.GraphDriver},
		}, protocol.FromContainer))
	}
	return all
}

func ids(containers []container) []string {
	all := make([]string, len(containers))
	for i, c := range containers {
		all[i] = c.Id
	}
	return all
}

// madeUpHandles are handles of containers that nobody has.
func madeUpHandles(s core.StoreInfo, n int) []handle {
	all := none[handle]()
	state, use := iounmoorplugin.State(core.StateStopped), iounmoorplugin.Use(core.UseIdle.String())
	for _, c := range madeUp(s, n) {
		all = append(all, handle{Container: c, Report: iounmoorplugin.Report{Id: c.Id,
			Ownership: iounmoorplugin.Ownership(core.OwnershipMine.String()), State: &state, Use: &use, Evidence: none[iounmoorplugin.Evidence]()}})
	}
	return all
}

func (p *probe) claimIn(s core.StoreInfo, containers []container) protocol.ClaimIn {
	return protocol.ClaimIn{ProtocolVersion: protocol.Version, Store: p.wireStore(s), Containers: containers}
}

// claim asks about containers. An engine that cannot answer is a *skip, since the rules are about answers.
func (p *probe) claim(s core.StoreInfo, containers []container) ([]loose, error) {
	r, err := p.call(protocol.MethodClaim, p.claimIn(s, containers), p.options.Deadline)
	if err != nil {
		return nil, err
	}
	return reportsOf(r)
}

func reportsOf(r reply) ([]loose, error) {
	if err := unavailable(r); err != nil {
		return nil, err
	}
	return looseOf(r.Parameters).objects("reports"), nil
}

// unavailable is a *skip where the engine cannot answer, and an error for any other error.
func unavailable(r reply) error {
	switch r.Error {
	case "":
		return nil
	case protocol.ErrorEngineUnavailable:
		return skipf("the engine cannot answer: %.300s", looseOf(r.Parameters).text("reason"))
	}
	return fmt.Errorf("it answers with %s", r)
}

func isSkip(err error) bool {
	var s *skip
	return errors.As(err, &s)
}

func asText(v any) string {
	if v == nil {
		return "left out"
	}
	text, err := json.Marshal(v)
	if err != nil {
		return err.Error()
	}
	return string(text)
}
