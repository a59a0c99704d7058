// A plot for each question: bars in SVG, written by hand, on a ground of their own that follows the reader's light or dark
// page. What the bars show is also told in words, for those who listen.

import { mkdirSync, readFileSync, writeFileSync } from 'node:fs'
import { figureOf, type Row, ratioOf } from './measure.ts'

const WIDTH = 860
const MARGIN = 24
const BAR = 16
const STEP = 25
const HEADING = 46
/** What a letter of a name may take, and what figures take to the right of the longest bar. */
const LETTER = 7
const FIGURES = 190
/** Letters of a note that fit beside the longest bar. */
const ROOM = 18

const STYLE = `
text { font: 13px system-ui, -apple-system, "Segoe UI", "DejaVu Sans", sans-serif; fill: #1f2328 }
.ground { fill: #ffffff; stroke: #d1d9e0 }
.question { font-weight: 600; font-size: 14px }
.quiet { fill: #59636e }
.base { stroke: #818b98 }
.other { fill: #8c98a6 }
.yardstick { fill: #57606a }
.sessile { fill: #0969da }
.figure { font-weight: 600 }
@media (prefers-color-scheme: dark) {
text { fill: #e6edf3 }
.ground { fill: #0d1117; stroke: #3d444d }
.quiet { fill: #9198a1 }
.base { stroke: #656c76 }
.other { fill: #656c76 }
.yardstick { fill: #9198a1 }
.sessile { fill: #4493f8 }
}`

const ENTITIES: Record<string, string> = { '&': '&amp;', '<': '&lt;', '>': '&gt;', '"': '&quot;' }
const escaped = (text: string) => text.replace(/[&<>"]/g, (sign) => ENTITIES[sign] as string)

/** Units of time and memory are better when there is less of them; rates when there is more. */
const direction = (unit: string) =>
  unit.endsWith('/s') ? 'longer is better' : /^(ms|µs|s|[KMG]iB|bytes)\b/.test(unit) ? 'shorter is better' : ''

/** Rows that share a question and a unit share a scale. */
function panelsOf(rows: Row[]): Row[][] {
  const panels = new Map<string, Row[]>()
  for (const row of rows) {
    const key = `${row.question}\n${row.unit}`
    panels.set(key, [...(panels.get(key) ?? []), row])
  }
  return [...panels.values()]
}

/** Where a panel stands: its left edge, where names end and bars begin, and what the longest bar takes. */
interface Column {
  left: number
  names: number
  longest: number
}

/** Many small panels stand in two columns, where their names leave room for that. */
function columnsOf(panels: Row[][]): Column[] {
  const letters = Math.max(...panels.flat().map(({ contender }) => contender.length))
  const names = letters * LETTER + 12
  const half = (WIDTH - MARGIN) / 2
  const narrow = half - names - MARGIN - FIGURES / 2
  if (panels.length > 8 && narrow > 80)
    return [MARGIN, MARGIN + half].map((left) => ({ left, names: left + names, longest: narrow }))
  return [{ left: MARGIN, names: MARGIN + names, longest: WIDTH - MARGIN - names - FIGURES }]
}

const heightOf = (rows: Row[]) => HEADING + rows.length * STEP + MARGIN

function panel(rows: Row[], top: number, { left, names, longest }: Column): string[] {
  const { question, unit } = rows[0] as Row
  const yardsticks = new Set(rows.map(({ yardstick }) => yardstick).filter((name) => name !== undefined))
  const about = [unit, direction(unit), ...[...yardsticks].map((name) => `1 × is ${name}`)].filter(Boolean).join(' · ')
  const most = Math.max(...rows.map(({ median }) => median), Number.MIN_VALUE)
  const first = top + HEADING
  const bars = rows.flatMap((row, i) => {
    const y = first + i * STEP
    const length = Math.max(1, (longest * row.median) / most)
    const kind = /^sessile/i.test(row.contender) ? 'sessile' : yardsticks.has(row.contender) ? 'yardstick' : 'other'
    const besides = [row.ratio === undefined ? undefined : ratioOf(row.ratio), row.note]
    const quiet = besides
      .filter((text) => text !== undefined && text.length <= ROOM)
      .map((text) => `<tspan class="quiet" dx="8">${escaped(text as string)}</tspan>`)
    return [
      `<text x="${names - 10}" y="${y + 13}" text-anchor="end">${escaped(row.contender)}</text>`,
      `<rect class="${kind}" x="${names}" y="${y}" width="${length.toFixed(1)}" height="${BAR}" rx="2"/>`,
      `<text x="${(names + length + 8).toFixed(1)}" y="${y + 13}"><tspan class="figure">${figureOf(row.median)}</tspan>${quiet.join('')}</text>`,
    ]
  })
  return [
    `<text class="question" x="${left}" y="${top + 14}">${escaped(question)}</text>`,
    `<text class="quiet" x="${left}" y="${top + 32}">${escaped(about)}</text>`,
    ...bars,
    `<line class="base" x1="${names}" y1="${first - 4}" x2="${names}" y2="${first + rows.length * STEP - 5}"/>`,
  ]
}

const told = ({ question, contender, unit, median, ratio, yardstick, note }: Row) =>
  [
    `${question}: ${contender}`,
    `${figureOf(median)} ${unit}`,
    ratio === undefined ? '' : `${ratioOf(ratio)} ${yardstick}`,
    note ?? '',
  ]
    .filter(Boolean)
    .join(', ')
    .concat('.')

/** The plot of one question's rows. */
export function plot(name: string, rows: Row[]): string {
  const panels = panelsOf(rows)
  const columns = columnsOf(panels)
  const drawn: string[] = []
  let top = MARGIN
  for (let i = 0; i < panels.length; i += columns.length) {
    const abreast = panels.slice(i, i + columns.length)
    drawn.push(...abreast.flatMap((one, n) => panel(one, top, columns[n] as Column)))
    top += Math.max(...abreast.map(heightOf))
  }
  const height = top
  return [
    `<svg xmlns="http://www.w3.org/2000/svg" width="${WIDTH}" height="${height}" viewBox="0 0 ${WIDTH} ${height}" role="img" aria-labelledby="title told">`,
    `<title id="title">Benchmark: ${escaped(name)}</title>`,
    `<desc id="told">${escaped(rows.map(told).join(' '))}</desc>`,
    `<style>${STYLE}\n</style>`,
    `<rect class="ground" x="0.5" y="0.5" width="${WIDTH - 1}" height="${height - 1}" rx="6"/>`,
    ...drawn,
    '</svg>\n',
  ].join('\n')
}

const PLOTS = new URL('../docs/plots/', import.meta.url)
const PAGE = new URL('../docs/PERFORMANCE.md', import.meta.url)

/** Draws the rows of a question, and puts drawing and figures into their place in docs/PERFORMANCE.md, where they have one. */
export function writePlot(name: string, rows: Row[]): void {
  if (!placeOf(name).test(readFileSync(PAGE, 'utf8'))) return
  mkdirSync(PLOTS, { recursive: true })
  writeFileSync(new URL(`${name}.svg`, PLOTS), plot(name, rows))
  write(name, `![${name}: the figures of the table below](plots/${name}.svg)\n\n${table(rows)}`)
}

const placeOf = (name: string) => new RegExp(`(<!-- ${name}: printed by npm run bench -->\\n).*?(<!-- end -->)`, 's')

/** Puts text between the marks of this name. */
export function write(name: string, text: string): void {
  const page = readFileSync(PAGE, 'utf8')
  writeFileSync(
    PAGE,
    page.replace(placeOf(name), (_, before: string, after: string) => `${before}\n${text}\n\n${after}`),
  )
}

const table = (rows: Row[]) =>
  [
    '| | contender | median | ratio |',
    '|---|---|---|---|',
    ...rows.map(({ question, contender, unit, median, ratio, yardstick, note }) => {
      const against = ratio === undefined ? '' : `${ratioOf(ratio)} ${yardstick}`
      return `| ${question} | ${contender} | ${figureOf(median)} ${unit} | ${[against, note].filter(Boolean).join('; ')} |`
    }),
  ].join('\n')
