package treemap

import (
	"bufio"
	"bytes"
	"context"
	"encoding/base64"
	"encoding/json"
	"fmt"
	"image/png"
	"os"
	"os/exec"
	"path/filepath"
	"strings"
	"sync"
	"testing"
	"time"
)

// browser is a headless Chromium that is spoken to through its DevTools pipe.
type browser struct {
	t       *testing.T
	out     *os.File
	session string

	mu      sync.Mutex
	next    int
	answers map[int]chan answer
	// trouble are errors of the page and of its policy, requests what it asked for.
	trouble, requests []string
}

type answer struct {
	Result json.RawMessage
	Error  *struct{ Message string }
}

// start starts Chromium on a page.
func start(t *testing.T, text string, width, height int, dark bool) *browser {
	t.Helper()
	if testing.Short() {
		t.Skip("a browser takes seconds")
	}
	program, err := exec.LookPath("chromium")
	if err != nil {
		if os.Getenv("CI") == "true" {
			t.Fatal("chromium is not here, which CI must have: see itest/setup.sh")
		}
		t.Skip("chromium is not here")
	}
	path := filepath.Join(t.TempDir(), "page.html")
	if err := os.WriteFile(path, []byte(text), 0o600); err != nil {
		t.Fatal(err)
	}
	theirIn, out, err := os.Pipe()
	if err != nil {
		t.Fatal(err)
	}
	in, theirOut, err := os.Pipe()
	if err != nil {
		t.Fatal(err)
	}
	ctx, stop := context.WithCancel(context.Background())
	var log bytes.Buffer
	cmd := exec.CommandContext(ctx, program, "--headless", "--no-sandbox", "--disable-gpu", "--disable-quic", "--no-first-run",
		"--disable-background-networking", "--disable-component-update", "--disable-sync", "--disable-dev-shm-usage",
		"--user-data-dir="+t.TempDir(), "--remote-debugging-pipe", "about:blank")
	cmd.ExtraFiles = []*os.File{theirIn, theirOut} // 3 and 4
	cmd.Stderr = &log
	if err := cmd.Start(); err != nil {
		t.Fatal(err)
	}
	theirIn.Close()
	theirOut.Close()
	b := &browser{t: t, out: out, answers: make(map[int]chan answer)}
	var reader sync.WaitGroup
	reader.Go(func() { b.read(in) })
	t.Cleanup(func() {
		out.Close()
		stop()
		cmd.Wait()
		in.Close()
		reader.Wait()
		if t.Failed() {
			t.Logf("chromium said: %s", log.String())
		}
	})
	var target struct{ TargetID string }
	b.ask("Target.createTarget", map[string]any{"url": "about:blank"}, &target)
	var attached struct{ SessionID string }
	b.ask("Target.attachToTarget", map[string]any{"targetId": target.TargetID, "flatten": true}, &attached)
	b.session = attached.SessionID
	for _, domain := range []string{"Page", "Runtime", "Log", "Network"} {
		b.ask(domain+".enable", nil, nil)
	}
	b.ask("Emulation.setDeviceMetricsOverride", map[string]any{"width": width, "height": height, "deviceScaleFactor": 1, "mobile": false}, nil)
	scheme := "light"
	if dark {
		scheme = "dark"
	}
	b.ask("Emulation.setEmulatedMedia", map[string]any{"features": []any{map[string]any{"name": "prefers-color-scheme", "value": scheme}}}, nil)
	b.ask("Page.navigate", map[string]any{"url": "file://" + path}, nil)
	b.until(`document.readyState === "complete" && document.querySelector("#map > *") !== null`)
	return b
}

func (b *browser) read(in *os.File) {
	r := bufio.NewReader(in)
	for {
		message, err := r.ReadBytes(0)
		if err != nil {
			b.mu.Lock()
			for id, c := range b.answers {
				delete(b.answers, id)
				c <- answer{Error: &struct{ Message string }{"the browser has gone"}}
			}
			b.answers = nil
			b.mu.Unlock()
			return
		}
		var m struct {
			ID     int
			Method string
			Params struct {
				Entry   struct{ Text, Level string }
				Request struct{ URL string }

				ExceptionDetails json.RawMessage
			}
			answer
		}
		if json.Unmarshal(bytes.TrimSuffix(message, []byte{0}), &m) != nil {
			continue
		}
		b.mu.Lock()
		switch m.Method {
		case "":
			if c := b.answers[m.ID]; c != nil {
				delete(b.answers, m.ID)
				c <- m.answer
			}
		case "Runtime.exceptionThrown":
			b.trouble = append(b.trouble, string(m.Params.ExceptionDetails))
		case "Log.entryAdded":
			b.trouble = append(b.trouble, m.Params.Entry.Level+": "+m.Params.Entry.Text)
		case "Network.requestWillBeSent":
			b.requests = append(b.requests, m.Params.Request.URL)
		}
		b.mu.Unlock()
	}
}

func (b *browser) ask(method string, params map[string]any, result any) {
	b.t.Helper()
	if params == nil {
		params = map[string]any{}
	}
	c := make(chan answer, 1)
	b.mu.Lock()
	b.next++
	id := b.next
	if b.answers == nil {
		b.mu.Unlock()
		b.t.Fatal("the browser has gone")
	}
	b.answers[id] = c
	b.mu.Unlock()
	message := map[string]any{"id": id, "method": method, "params": params}
	if b.session != "" {
		message["sessionId"] = b.session
	}
	text, err := json.Marshal(message)
	if err != nil {
		b.t.Fatal(err)
	}
	if _, err := b.out.Write(append(text, 0)); err != nil {
		b.t.Fatal(err)
	}
	select {
	case a := <-c:
		if a.Error != nil {
			b.t.Fatalf("%s: %s", method, a.Error.Message)
		}
		if result != nil {
			if err := json.Unmarshal(a.Result, result); err != nil {
				b.t.Fatal(err)
			}
		}
	case <-time.After(60 * time.Second):
		b.t.Fatalf("%s: no answer", method)
	}
}

// eval evaluates an expression in the page.
func eval[T any](b *browser, expression string) (value T) {
	b.t.Helper()
	var r struct {
		Result           struct{ Value json.RawMessage }
		ExceptionDetails json.RawMessage
	}
	b.ask("Runtime.evaluate", map[string]any{"expression": expression, "returnByValue": true}, &r)
	if r.ExceptionDetails != nil {
		b.t.Fatalf("%s: %s", expression, r.ExceptionDetails)
	}
	if err := json.Unmarshal(r.Result.Value, &value); err != nil {
		b.t.Fatalf("%s: %v", expression, err)
	}
	return value
}

// until waits until an expression is true.
func (b *browser) until(expression string) {
	b.t.Helper()
	for end := time.Now().Add(30 * time.Second); ; time.Sleep(20 * time.Millisecond) {
		if eval[bool](b, expression) {
			return
		}
		if time.Now().After(end) {
			b.t.Fatalf("it never was: %s", expression)
		}
	}
}

// click clicks in the middle of the element that an expression gives.
func (b *browser) click(element string) {
	b.t.Helper()
	at := eval[[2]float64](b, `(() => { const e = `+element+`; e.scrollIntoView({block: "nearest"}); const r = e.getBoundingClientRect(); return [r.left + r.width / 2, r.top + r.height / 2] })()`)
	for _, kind := range []string{"mousePressed", "mouseReleased"} {
		b.ask("Input.dispatchMouseEvent", map[string]any{"type": kind, "x": at[0], "y": at[1], "button": "left", "clickCount": 1}, nil)
	}
}

func (b *browser) key(name string) {
	b.t.Helper()
	codes := map[string]int{"Enter": 13, "Escape": 27, "ArrowLeft": 37, "ArrowUp": 38, "ArrowRight": 39, "ArrowDown": 40, "Tab": 9}
	text := ""
	if name == "Enter" {
		text = "\r"
	}
	b.ask("Input.dispatchKeyEvent", map[string]any{"type": "keyDown", "key": name, "code": name, "windowsVirtualKeyCode": codes[name], "text": text}, nil)
	b.ask("Input.dispatchKeyEvent", map[string]any{"type": "keyUp", "key": name, "code": name, "windowsVirtualKeyCode": codes[name]}, nil)
}

// screenshot takes a picture; UNMOOR_SCREENSHOTS is where to keep it. A picture of one colour shows nothing.
func (b *browser) screenshot(name string, width, height int) {
	b.t.Helper()
	var r struct{ Data string }
	b.ask("Page.captureScreenshot", map[string]any{"format": "png"}, &r)
	data, err := base64.StdEncoding.DecodeString(r.Data)
	if err != nil {
		b.t.Fatal(err)
	}
	if dir := os.Getenv("UNMOOR_SCREENSHOTS"); dir != "" {
		if err := os.WriteFile(filepath.Join(dir, name+".png"), data, 0o600); err != nil {
			b.t.Fatal(err)
		}
	}
	picture, err := png.Decode(bytes.NewReader(data))
	if err != nil {
		b.t.Fatal(err)
	}
	colours := make(map[string]int)
	for y := 0; y < picture.Bounds().Dy(); y += 3 {
		for x := 0; x < picture.Bounds().Dx(); x += 3 {
			colours[fmt.Sprint(picture.At(x, y))]++
		}
	}
	if picture.Bounds().Dx() != width || picture.Bounds().Dy() != height || len(colours) < 20 {
		b.t.Errorf("%s: %v with %d colours", name, picture.Bounds(), len(colours))
	}
}

// quiet makes sure that the page had no error, and asked for nothing but itself.
func (b *browser) quiet() {
	b.t.Helper()
	b.mu.Lock()
	defer b.mu.Unlock()
	if len(b.trouble) > 0 || len(b.requests) != 1 || !strings.HasPrefix(b.requests[0], "file://") {
		b.t.Errorf("trouble %v, requests %v", b.trouble, b.requests)
	}
}

func tile(name string) string {
	return fmt.Sprintf(`[...document.querySelectorAll("#map .tile")].find(t => t.item && t.item.name.startsWith(%q))`, name)
}

const details = `document.getElementById("details").innerText`

func TestPage(t *testing.T) {
	for _, dark := range []bool{false, true} {
		t.Run(fmt.Sprintf("dark=%v", dark), func(t *testing.T) {
			t.Parallel()
			b := start(t, write(t, sample(0)), 1400, 1000, dark)
			// The rectangles have the shares of the bytes, and lie within the map.
			if off := eval[[]string](b, `(() => {
				const map = document.getElementById("map").getBoundingClientRect(), off = [];
				const area = e => { const r = e.getBoundingClientRect(); return r.width * r.height };
				const tiles = [...document.querySelectorAll("#map .tile")].filter(t => t.item);
				for (const g of document.querySelectorAll(".group")) {
					const of = [...g.querySelectorAll(".tile")].filter(t => t.item);
					const bytes = of.reduce((s, t) => s + t.item.bytes, 0), all = of.reduce((s, t) => s + area(t), 0);
					for (const t of of) {
						const share = t.item.bytes / bytes, drawn = area(t) / all;
						if (Math.abs(share - drawn) > 0.02) off.push(t.item.name + " " + share + " " + drawn);
						const r = t.getBoundingClientRect();
						if (r.left < map.left - 1 || r.right > map.right + 1 || r.top < map.top - 1 || r.bottom > map.bottom + 1) off.push(t.item.name + " is outside");
					}
				}
				if (tiles.length !== 16) off.push(tiles.length + " rectangles");
				return off })()`); len(off) > 0 {
				t.Errorf("not as the bytes are: %v", off)
			}
			// What can go is told by colour, and by pattern.
			if looks := eval[int](b, `new Set([...document.querySelectorAll("#map .tile")].map(t => getComputedStyle(t).backgroundColor + getComputedStyle(t).backgroundImage)).size`); looks != 3 {
				t.Errorf("the rectangles have %d looks", looks)
			}
			if patterns := eval[int](b, `new Set([...document.querySelectorAll("#map .tile")].map(t => getComputedStyle(t).backgroundImage)).size`); patterns != 3 {
				t.Errorf("the rectangles have %d patterns", patterns)
			}
			// Text is readable: WCAG 2.2, contrast of 4.5 to 1.
			if poor := eval[[]string](b, `(() => {
				const rgb = s => s.match(/[\d.]+/g).map(Number);
				const light = c => { const [r, g, b] = rgb(c).map(v => { v /= 255; return v <= .04045 ? v / 12.92 : ((v + .055) / 1.055) ** 2.4 }); return .2126 * r + .7152 * g + .0722 * b };
				const poor = [];
				const ground = e => { for (; e; e = e.parentElement) { const c = getComputedStyle(e).backgroundColor; if (rgb(c).length < 4 || rgb(c)[3] > 0) return c } return "rgb(255,255,255)" };
				for (const e of document.querySelectorAll("#map .tile, .card, .head, #rows td, #rows button, .hint, #controls label, legend, h1, header p, footer, th")) {
					const a = light(getComputedStyle(e).color), b = light(ground(e));
					const ratio = (Math.max(a, b) + .05) / (Math.min(a, b) + .05);
					if (ratio < 4.5) poor.push(e.className + e.tagName + " " + ratio.toFixed(2));
				}
				return poor })()`); len(poor) > 0 {
				t.Errorf("hard to read: %v", poor)
			}
			// A click shows the evidence.
			b.click(tile("shop/web/app"))
			text := eval[string](b, details)
			for _, want := range []string{"shop/web/app", "Reclaimable: after a stop", "running in crio", "pod shop/web", "pid 22402", "/proc/22402/root", "unmoor why cc3300000000", id("cc33")} {
				if !strings.Contains(text, want) {
					t.Errorf("%q is not in %q", want, text)
				}
			}
			if pressed := eval[int](b, `document.querySelectorAll('[aria-pressed="true"]').length`); pressed != 1 {
				t.Errorf("%d rectangles are pressed", pressed)
			}
			b.screenshot(fmt.Sprintf("page-dark-%v", dark), 1400, 1000)
			// By its keys alone: focus, move, show, go in and out of a group.
			eval[bool](b, `(() => { document.querySelector('#map [tabindex="0"]').focus(); return true })()`)
			if n := eval[int](b, `document.querySelectorAll('#map [tabindex="0"]').length`); n != 1 {
				t.Errorf("%d stops of the tabulator in the map", n)
			}
			visited := make(map[string]bool)
			for _, key := range []string{"ArrowLeft", "ArrowLeft", "ArrowLeft", "ArrowUp", "ArrowUp", "ArrowUp", "ArrowDown", "ArrowRight", "ArrowDown", "ArrowRight", "ArrowDown"} {
				b.key(key)
				visited[eval[string](b, `document.activeElement.getAttribute("aria-label")`)] = true
			}
			if len(visited) < 5 {
				t.Errorf("the keys came to %v", visited)
			}
			eval[bool](b, `(() => { `+tile("old-job")+`.focus(); return true })()`)
			b.key("Enter")
			if text := eval[string](b, details); !strings.Contains(text, "old-job") {
				t.Errorf("Enter shows %q", text)
			}
			eval[bool](b, `(() => { document.querySelector(".head").focus(); return true })()`)
			b.key("Enter")
			b.until(`document.querySelectorAll("#map > .group").length === 0 && document.querySelectorAll("#trail button").length === 1`)
			b.key("Escape")
			b.until(`document.querySelectorAll("#map > .group").length > 1`)
			// Grouped by fate, and searched.
			b.click(`document.querySelector('input[value="fate"]')`)
			b.until(`[...document.querySelectorAll(".head")].filter(b => b.textContent.startsWith("reclaimable: ")).length === 3`)
			b.screenshot(fmt.Sprintf("page-fate-dark-%v", dark), 1400, 1000)
			b.click(`document.getElementById("find")`)
			b.ask("Input.insertText", map[string]any{"text": "POSTGRES"}, nil)
			b.until(`document.getElementById("found").textContent === "1 of 17"`)
			if rows := eval[int](b, `[...document.querySelectorAll("#rows tr")].filter(r => r.offsetParent !== null || getComputedStyle(r).display !== "none").length`); rows != 1 {
				t.Errorf("%d rows are left", rows)
			}
			b.quiet()
		})
	}
}

// What engines say is text, wherever it is shown.
func TestHostilePage(t *testing.T) {
	t.Parallel()
	b := start(t, write(t, sample(0)), 1200, 900, false)
	for _, which := range []string{tile("</script>"), `[...document.querySelectorAll("#rows button")].find(b => b.textContent.startsWith("</script>"))`} {
		b.click(which)
		b.until(details + `.includes("</script><script>document.title=\"fooled\"</script><img src=x")`)
	}
	if got := eval[string](b, `document.title + document.querySelectorAll("img").length + document.scripts.length`); got != "/var/lib/containers/storage – what holds the store02" {
		t.Errorf("the page has become %q", got)
	}
	b.quiet()
	// The policy forbids what would have got through.
	b.ask("Runtime.evaluate", map[string]any{"expression": `document.body.insertAdjacentHTML("beforeend", "<img src='http://127.0.0.1:9/x' onerror='document.title=1'>")`}, nil)
	b.until(`document.images.length === 1 && document.images[0].complete`)
	if title := eval[string](b, "document.title"); title == "1" {
		t.Error("a handler in the markup was run")
	}
}

// Thousands of things are drawn at once, each can be reached, and the page answers.
func TestLargePage(t *testing.T) {
	t.Parallel()
	const more = 5000
	text := write(t, sample(more))
	t.Logf("%d bytes", len(text))
	begin := time.Now()
	b := start(t, text, 1400, 1000, false)
	t.Logf("drawn %v after the browser was started", time.Since(begin))
	if n := eval[int](b, `document.querySelectorAll("#rows tr").length`); n != more+17 {
		t.Errorf("%d rows", n)
	}
	took := eval[float64](b, `(() => { const begin = performance.now(); document.querySelector('input[value="kind"]').click(); document.getElementById("map").getBoundingClientRect(); return performance.now() - begin })()`)
	t.Logf("drawn anew in %.0f ms", took)
	if took > 5000 {
		t.Errorf("drawing takes %.0f ms", took)
	}
	b.screenshot("page-large", 1400, 1000)
	// Every one of them is in the map, or in a group of it that can be entered.
	reached := eval[int](b, `(() => {
		const seen = new Set();
		const visit = () => {
			for (const t of document.querySelectorAll("#map .tile")) if (t.item) seen.add(t.item);
			for (let n = 0; n < document.querySelectorAll("#map .tile.more").length; n++) {
				document.querySelectorAll("#map .tile.more")[n].click();
				visit();
				[...document.querySelectorAll("#trail button")].at(-1).click();
			}
		};
		visit();
		return seen.size })()`)
	if reached != more+16 { // one has no size
		t.Errorf("%d of %d can be reached", reached, more+16)
	}
	b.quiet()
}
