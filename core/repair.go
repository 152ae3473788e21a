package core

import (
	"context"
	"errors"
	"fmt"
	"time"
)

// Repair ends or cleans what was found, worst first, each by itself: what fails does not stop the rest.
// It asks for no proof of the caller: whatever is deleted is released by the kernel or removed by its
// engine before. There is one error a finding, nil where it is mended. ctx ends it between two findings;
// grace is between the polite signal and the forcible one. The order within each repair is such that one
// that was killed can be done again.
func (d *Doctor) Repair(ctx context.Context, found []Finding, grace time.Duration) []error {
	errs := make([]error, len(found))
	for i, f := range found {
		if errs[i] = ctx.Err(); errs[i] == nil {
			errs[i] = d.repair(ctx, f, grace)
		}
	}
	return errs
}

func (d *Doctor) repair(ctx context.Context, f Finding, grace time.Duration) error {
	switch f.Damage {
	case DamageWreck:
		return d.endWreck(ctx, f, grace)
	case DamageLostStorage:
		if claimsUse(f.claim) {
			if err := d.stop(ctx, f, grace); err != nil {
				return err
			}
		}
		return d.forget(ctx, f)
	case DamageLostRecord, DamageLostLayer:
		return d.remove(ctx, Request{Containers: []ContainerID{f.Container}, Force: ForceIdle, Grace: grace})
	case DamageStrayMount:
		_, err := d.Kernel.Release(ctx, f.place)
		return err
	case DamageStrayDirectory:
		if _, err := d.Kernel.Release(ctx, f.place); err != nil {
			return err
		}
		return d.Store.RemoveDirectory(ctx, f.place.Directory)
	case DamageUnreferencedLayer:
		if _, err := d.Kernel.Release(ctx, f.place); err != nil {
			return err
		}
		return d.Store.DeleteLayer(ctx, f.Layer)
	case DamageMountCount:
		if _, err := d.Kernel.Release(ctx, f.place); err != nil {
			return err
		}
		return d.Store.ResetMountCount(ctx, f.Layer)
	case DamageDeletion, DamageLoad:
		return d.complete(ctx)
	}
	return fmt.Errorf("there is no repair of %s", f.Damage)
}

// endWreck ends what runs on deleted files: through the engine first, and then, whether or not that could,
// by signals, and has the engine forget it.
func (d *Doctor) endWreck(ctx context.Context, f Finding, grace time.Duration) error {
	var byOwner error
	if f.Owner != "" {
		byOwner = d.stop(ctx, f, grace)
	}
	const rounds = 3 // a process that forks faster than that is not going to be caught
	for round := 0; ; round++ {
		o, err := d.observe(ctx, f.place)
		if err != nil {
			return err
		}
		left := Processes(o.Evidence)
		if o.Use != UseInUse || len(left) == 0 {
			break
		}
		if round == rounds {
			return &BusyError{Container: f.Container, Observation: o, Reason: usedBy(o)}
		}
		if err := d.Kernel.Terminate(ctx, left, grace); err != nil {
			return errors.Join(byOwner, err)
		}
	}
	if f.Owner == "" {
		return nil
	}
	return d.forget(ctx, f)
}

func (d *Doctor) observe(ctx context.Context, l Layer) (Observation, error) {
	seen, err := d.Engine.observe(ctx, nil, []Layer{l})
	return seen[l.ID], err
}

func (f Finding) handle() []Handle {
	return []Handle{{Container: Container{ID: f.Container}, Claim: f.claim}}
}

// stop has the owner stop a container that the store does not have.
func (d *Doctor) stop(ctx context.Context, f Finding, grace time.Duration) error {
	return single(d.Owners.Stop(ctx, f.Owner, d.Store.Info(), f.handle(), grace))
}

// forget has the owner remove its record of a container that the store does not have.
func (d *Doctor) forget(ctx context.Context, f Finding) error {
	return single(d.Owners.Remove(context.WithoutCancel(ctx), f.Owner, d.Store.Info(), f.handle()))
}

func single(outcomes []Outcome) error {
	if len(outcomes) != 1 {
		return errors.New("the engine gave no answer about it")
	}
	return outcomes[0].Err
}

// remove removes the usual way: decided anew, and nothing where anything is in the way.
func (d *Doctor) remove(ctx context.Context, r Request) error {
	plan, err := d.Engine.Plan(ctx, r)
	if err != nil {
		return err
	}
	var errs []error
	for _, result := range d.Engine.Execute(ctx, plan) {
		for _, b := range result.Blockers {
			errs = append(errs, &BusyError{Container: b.Container, Reason: b.Detail, Observation: Observation{Evidence: b.Evidence}})
		}
		for _, failure := range result.Failed {
			errs = append(errs, failure.Err)
		}
	}
	return errors.Join(errs...)
}

// complete completes the interrupted deletions of images, and deletes the dangling parents that were to go
// after them where nothing needs them.
func (d *Doctor) complete(ctx context.Context) error {
	completed, err := d.Store.CompleteInterrupted(ctx)
	errs := []error{err}
	for _, i := range completed {
		if len(i.Rest) > 0 {
			if err := d.remove(ctx, Request{Images: []ImageTarget{RestOf(i)}}); err != nil {
				errs = append(errs, err)
				continue
			}
		}
		errs = append(errs, d.Store.Conclude(ctx, i.Image.ID))
	}
	return errors.Join(errs...)
}
