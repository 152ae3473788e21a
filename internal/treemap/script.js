'use strict';
(() => {
  const data = JSON.parse(document.getElementById('data').textContent);
  const byID = id => document.getElementById(id);
  const fates = { now: 'now', after_stop: 'after a stop', never: 'never' };
  const kinds = { image: 'image', shared: 'shared layer', container: 'container', loose: 'layer of nothing' };
  const groupings = { owner: i => i.owner, fate: i => 'reclaimable: ' + fates[i.fate], kind: i => kinds[i.kind] + 's' };

  // make builds an element; what it says is text, never markup.
  function make(tag, classes, text) {
    const e = document.createElement(tag);
    if (classes) e.className = classes;
    if (text !== undefined) e.textContent = text;
    return e;
  }

  function size(bytes) {
    const units = ['B', 'kB', 'MB', 'GB', 'TB', 'PB'];
    let n = bytes, u = 0;
    while (n >= 1000 && u < units.length - 1) { n /= 1000; u++; }
    return (u === 0 ? String(n) : n.toPrecision(3).replace(/e.*$/, '')) + ' ' + units[u];
  }
  const sizeOf = i => size(i.bytes) + (i.unmeasured ? ' or more' : '');
  const label = i => `${i.name}, ${kinds[i.kind]} of ${i.owner}, ${sizeOf(i)}, reclaimable: ${fates[i.fate]}`;

  const items = data.items.slice().sort((a, b) => b.bytes - a.bytes);
  let grouping = 'owner';
  let trail = []; // the groups that the map is in: {name, items}
  let chosen = null;
  let wanted = '';
  const fits = i => !wanted || [i.name, i.id, i.owner, kinds[i.kind], ...i.facts.map(f => f.value)].some(t => t.toLowerCase().includes(wanted));

  // squarify lays values, the largest first, into a rectangle, so that each has its share of the area and
  // is as square as can be (Bruls, Huizing, van Wijk: Squarified Treemaps).
  function squarify(values, x, y, w, h, place) {
    let total = values.reduce((s, v) => s + v, 0);
    let at = 0;
    while (at < values.length && total > 0 && w > 0 && h > 0) {
      const side = Math.min(w, h), scale = w * h / total;
      let sum = 0, end = at, worst = Infinity;
      while (end < values.length) {
        const s = sum + values[end];
        const strip = s * scale / side;
        const next = Math.max(values[at] * scale / strip / strip, strip * strip / (values[end] * scale));
        if (end > at && next > worst) break;
        worst = next; sum = s; end++;
      }
      const depth = sum * scale / side;
      let along = 0;
      for (let n = at; n < end; n++) {
        const length = values[n] / sum * side;
        if (w >= h) place(n, x, y + along, depth, length); else place(n, x + along, y, length, depth);
        along += length;
      }
      if (w >= h) { x += depth; w -= depth; } else { y += depth; h -= depth; }
      total -= sum; at = end;
    }
  }

  function box(e, x, y, w, h) {
    Object.assign(e.style, { left: x + 'px', top: y + 'px', width: Math.max(w, 1) + 'px', height: Math.max(h, 1) + 'px' });
  }

  // shorter is the end of a name, which says the most.
  const shorter = name => name.slice(name.lastIndexOf('/') + 1) || name;

  // smallest is the least area of a rectangle in pixels; what is smaller is drawn together. Where all is so
  // small, most are drawn all the same.
  const smallest = 40, most = 400;

  function fill(parent, of, w, h, top, name) {
    const area = w * h, total = of.reduce((s, i) => s + i.bytes, 0);
    const sized = of.filter(i => i.bytes > 0); // the largest first
    let drawn = sized.filter(i => i.bytes / total * area >= smallest);
    if (drawn.length === 0 || sized.length - drawn.length < 2) drawn = sized.slice(0, Math.max(drawn.length + 1, most));
    const rest = sized.slice(drawn.length);
    const values = drawn.map(i => i.bytes), more = rest.reduce((s, i) => s + i.bytes, 0);
    const all = drawn.slice();
    if (rest.length) {
      const n = values.findIndex(v => v < more);
      values.splice(n < 0 ? values.length : n, 0, more);
      all.splice(n < 0 ? all.length : n, 0, null);
    }
    squarify(values, 0, top, w, h, (n, x, y, tw, th) => {
      const i = all[n];
      const tile = make('button', 'tile');
      tile.type = 'button';
      tile.tabIndex = -1;
      box(tile, x, y, tw, th);
      if (tw < 34 || th < 18) tile.classList.add('small');
      if (i) {
        tile.classList.add(i.fate);
        tile.item = i;
        tile.setAttribute('aria-label', label(i));
        tile.setAttribute('aria-pressed', String(i === chosen));
        tile.title = label(i);
        if (tw >= 34 && th >= 18) tile.append(make('span', '', tw < 160 ? shorter(i.name) : i.name));
        if (tw >= 50 && th >= 36) tile.append(make('span', '', sizeOf(i)));
        tile.addEventListener('click', () => show(i));
      } else {
        const text = `${rest.length} smaller ones`;
        tile.classList.add('more');
        tile.items = rest;
        tile.title = `${text} of ${name}, ${size(more)}: go in`;
        tile.setAttribute('aria-label', tile.title);
        if (tw >= 34 && th >= 18) tile.append(make('span', '', text));
        tile.addEventListener('click', () => enter(text, rest));
      }
      parent.append(tile);
    });
  }

  function draw() {
    const map = byID('map'), w = map.clientWidth, h = map.clientHeight;
    map.replaceChildren();
    if (trail.length) {
      fill(map, trail[trail.length - 1].items, w, h, 0, trail[trail.length - 1].name);
    } else {
      const groups = new Map();
      for (const i of items) {
        if (i.bytes <= 0) continue;
        const name = groupings[grouping](i);
        if (!groups.has(name)) groups.set(name, { name, items: [], bytes: 0 });
        const g = groups.get(name);
        g.items.push(i);
        g.bytes += i.bytes;
      }
      const all = [...groups.values()].sort((a, b) => b.bytes - a.bytes);
      squarify(all.map(g => g.bytes), 0, 0, w, h, (n, x, y, gw, gh) => {
        const g = all[n], e = make('div', 'group');
        box(e, x, y, gw, gh);
        const text = `${g.name}: ${size(g.bytes)}, ${g.items.length}`;
        const head = make('button', 'head', text);
        head.type = 'button';
        head.tabIndex = -1;
        head.title = `${text}: go in`;
        head.setAttribute('aria-label', head.title);
        head.addEventListener('click', () => enter(g.name, g.items));
        e.append(head);
        const top = gh > 44 ? 20 : 0;
        if (!top) head.classList.add('hidden');
        fill(e, g.items, gw - 2, gh - 2 - top, top, g.name);
        map.append(e);
      });
      if (!all.length) map.append(make('p', 'hint', 'Nothing in the store has a size.'));
    }
    const first = map.querySelector('.tile[aria-pressed="true"]') || map.querySelector('.head:not(.hidden), .tile');
    if (first) first.tabIndex = 0;
    const path = byID('trail');
    path.replaceChildren();
    [{ name: 'All' }, ...trail].forEach((t, n) => {
      if (n) path.append(make('span', '', '›'));
      if (n === trail.length) { path.append(make('span', '', t.name)); return; }
      const b = make('button', '', t.name);
      b.type = 'button';
      b.addEventListener('click', () => { trail = trail.slice(0, n); draw(); focusMap(); });
      path.append(b);
    });
    dim();
  }

  function enter(name, of) { trail.push({ name, items: of }); draw(); focusMap(); }
  function focusMap() { const e = byID('map').querySelector('[tabindex="0"]'); if (e) e.focus(); }

  function dim() {
    for (const t of byID('map').querySelectorAll('.tile')) {
      t.classList.toggle('dim', !(t.item ? fits(t.item) : t.items.some(fits)));
    }
  }

  function show(i) {
    chosen = i;
    for (const t of byID('map').querySelectorAll('.tile')) if (t.item) t.setAttribute('aria-pressed', String(t.item === i));
    const d = byID('details');
    d.replaceChildren(make('h2', '', i.name), make('p', 'badge ' + i.fate, 'Reclaimable: ' + fates[i.fate]), make('p', '', i.reason));
    const list = make('dl');
    const facts = [{ key: 'Kind', value: kinds[i.kind] }, { key: 'Owner', value: i.owner }, { key: 'Size', value: `${sizeOf(i)} (${i.bytes} bytes)` }, ...i.facts, { key: 'ID', value: i.id }];
    for (const f of facts) list.append(make('dt', '', f.key), make('dd', '', f.value));
    d.append(list);
    for (const c of i.because) {
      const p = make('p', 'because', c.detail);
      d.append(p);
      if (c.advice) d.append(make('p', 'hint', c.advice));
      if (c.evidence.length) {
        const ul = make('ul', 'evidence');
        for (const e of c.evidence) ul.append(make('li', '', e));
        d.append(ul);
      }
    }
    if (i.kind === 'image' || i.kind === 'container') {
      const p = make('p', 'hint', 'As it is now: ');
      p.append(make('code', '', 'unmoor why ' + i.id.slice(0, 12)));
      d.append(p);
    }
    d.scrollTop = 0;
  }

  // go moves the focus to the nearest thing in a direction.
  function go(from, dx, dy) {
    const here = from.getBoundingClientRect();
    const cx = here.left + here.width / 2, cy = here.top + Math.min(here.height, 20) / 2;
    let best = null, least = Infinity;
    for (const e of byID('map').querySelectorAll('.tile, .head:not(.hidden)')) {
      if (e === from) continue;
      const r = e.getBoundingClientRect();
      const x = r.left + r.width / 2 - cx, y = r.top + Math.min(r.height, 20) / 2 - cy;
      const ahead = x * dx + y * dy, aside = Math.abs(x * dy) + Math.abs(y * dx);
      if (ahead <= 1) continue;
      const far = ahead + 3 * aside;
      if (far < least) { least = far; best = e; }
    }
    if (best) { from.tabIndex = -1; best.tabIndex = 0; best.focus(); }
  }

  byID('map').addEventListener('keydown', event => {
    const ways = { ArrowLeft: [-1, 0], ArrowRight: [1, 0], ArrowUp: [0, -1], ArrowDown: [0, 1] };
    if (ways[event.key]) { go(event.target, ...ways[event.key]); event.preventDefault(); }
    if ((event.key === 'Escape' || event.key === 'Backspace') && trail.length) { trail.pop(); draw(); focusMap(); event.preventDefault(); }
  });
  byID('map').addEventListener('focusin', event => {
    for (const e of byID('map').querySelectorAll('[tabindex="0"]')) if (e !== event.target) e.tabIndex = -1;
    event.target.tabIndex = 0;
  });

  byID('controls').addEventListener('submit', event => event.preventDefault());
  byID('controls').addEventListener('change', event => {
    if (event.target.name === 'group') { grouping = event.target.value; trail = []; draw(); }
  });
  const rows = new Map();
  byID('find').addEventListener('input', event => {
    wanted = event.target.value.trim().toLowerCase();
    let n = 0;
    for (const [i, row] of rows) {
      const is = fits(i);
      row.classList.toggle('dim', !is);
      n += is;
    }
    byID('found').textContent = wanted ? `${n} of ${items.length}` : '';
    dim();
  });

  for (const i of items) {
    const row = make('tr'), name = make('td'), b = make('button', '', i.name);
    b.type = 'button';
    b.addEventListener('click', () => { show(i); byID('details').scrollIntoView({ block: 'nearest' }); });
    name.append(b);
    row.append(name, make('td', '', kinds[i.kind]), make('td', '', i.owner), make('td', 'number', sizeOf(i)), make('td', '', fates[i.fate]));
    rows.set(i, row);
  }
  byID('rows').append(...rows.values());

  function card(classes, what, value, note) {
    const e = make('div', 'card ' + classes, what);
    e.append(make('b', '', value), make('span', '', note));
    byID('totals').append(e);
  }
  const t = data.total, part = n => t.bytes ? `${Math.round(n / t.bytes * 100)} % of the store` : '';
  card('', 'In the store', size(t.bytes) + (t.unmeasured ? ' or more' : ''), `${items.length} things` + (t.unmeasured ? `, ${t.unmeasured} ${t.unmeasured === 1 ? 'layer' : 'layers'} of unknown size` : ''));
  card('now', 'Reclaimable now', size(t.now), part(t.now) + ', nothing uses it');
  card('after_stop', 'After a stop', size(t.afterStop), part(t.afterStop) + ', in use');
  card('never', 'Never', size(t.never), part(t.never) + ', protected, pinned or not known');
  if (data.disk) card('', 'File system', size(data.disk.capacity - data.disk.available), `of ${size(data.disk.capacity)} are taken`);
  byID('store').textContent = `${data.root}, ${data.driver}, on ${data.time.replace('T', ' ').replace('Z', ' UTC')}`;
  byID('foot').textContent = `Drawn by ${data.program}. Layers of images count with their recorded, uncompressed size.`
    + (data.readOnly ? ` ${size(data.readOnly)} in additional image stores are left out.` : '');

  draw();
  let drawnAt = '';
  new ResizeObserver(() => {
    const now = byID('map').clientWidth + 'x' + byID('map').clientHeight;
    if (now !== drawnAt) { drawnAt = now; draw(); }
  }).observe(byID('map'));
})();
