package protocol

import (
	"cmp"
	"errors"
	"fmt"

	"github.com/unmoor/unmoor/core"
	iounmoorplugin "github.com/unmoor/unmoor/varlink/plugin"
)

// FromStore makes a store for the wire. Its roots are absolute paths.
func FromStore(s core.StoreInfo) (iounmoorplugin.Store, error) {
	w := iounmoorplugin.Store{GraphRoot: s.GraphRoot, RunRoot: s.RunRoot, GraphDriver: s.GraphDriver,
		GraphOptions: texts(s.GraphOptions), Default: s.Default}
	return w, checkStore(w)
}

// ToStore reads a store.
func ToStore(w iounmoorplugin.Store) (core.StoreInfo, error) {
	if err := checkStore(w); err != nil {
		return core.StoreInfo{}, err
	}
	return core.StoreInfo{GraphRoot: w.GraphRoot, RunRoot: w.RunRoot, GraphDriver: w.GraphDriver,
		GraphOptions: typed[string](w.GraphOptions), Default: w.Default}, nil
}

func checkStore(w iounmoorplugin.Store) error {
	driver := error(nil)
	if w.GraphDriver == "" {
		driver = errors.New("the driver is missing")
	}
	err := cmp.Or(checkPath("graph root", w.GraphRoot), checkPath("run root", w.RunRoot), driver,
		checkText("driver", w.GraphDriver), checkTexts("driver option", w.GraphOptions))
	if err != nil {
		return fmt.Errorf("store: %w", err)
	}
	return nil
}
