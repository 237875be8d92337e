package report

// styleSheet is part of the page; the page's content policy names its digest.
// It must not contain "</".
const styleSheet lit = `
:root{--paper:#fff;--wash:#f5f6f8;--ink:#14181f;--soft:#5a6372;--line:#dfe3e9;--fix:#2f6fd0;--open:#c8551b;--openback:#f3d3c0;
--calm:#13713f;--calmback:#e4f4ea;--alert:#9a3d0c;--alertback:#fdeee3;--link:#1d56ad}
@media (prefers-color-scheme:dark){:root{--paper:#12161c;--wash:#1a2029;--ink:#e8ebf0;--soft:#9aa5b5;--line:#2c3542;--fix:#6aa2f5;--open:#f0935a;--openback:#5a3320;
--calm:#7fd6a3;--calmback:#15301f;--alert:#ffbd91;--alertback:#3a2012;--link:#8db8f8}}
*{box-sizing:border-box}
html{-webkit-text-size-adjust:100%}
body{margin:0;background:var(--paper);color:var(--ink);font:16px/1.55 system-ui,-apple-system,"Segoe UI",Roboto,"Helvetica Neue",Arial,"DejaVu Sans",sans-serif}
header,main{max-width:1080px;margin:0 auto;padding:0 32px}
header{padding-top:56px}
.eyebrow{margin:0 0 6px;color:var(--soft);font-size:13px;font-weight:600;letter-spacing:.09em;text-transform:uppercase}
h1{margin:0;font-size:36px;line-height:1.18;font-weight:700;letter-spacing:-.015em;overflow-wrap:anywhere}
h2{margin:0 0 6px;font-size:21px;line-height:1.3;font-weight:650;letter-spacing:-.005em}
p{margin:0 0 14px}
.facts{margin:10px 0 0;color:var(--soft);overflow-wrap:anywhere}
.verdict{margin:26px 0 0;padding:14px 18px;border-left:4px solid;border-radius:0 6px 6px 0;font-size:18px;font-weight:600}
.verdict.calm{color:var(--calm);background:var(--calmback)}
.verdict.alert{color:var(--alert);background:var(--alertback)}
.tiles{display:grid;grid-template-columns:repeat(5,1fr);gap:0;margin:26px 0 0;border:1px solid var(--line);border-radius:8px}
.tiles div{display:flex;flex-direction:column-reverse;padding:16px 18px;border-left:1px solid var(--line)}
.tiles div:first-child{border-left:0}
.tiles dt{color:var(--soft);font-size:14px}
.tiles dd{margin:0;font-size:30px;line-height:1.2;font-weight:700;font-variant-numeric:tabular-nums}
.levels{display:flex;flex-wrap:wrap;gap:8px 22px;margin:18px 0 0;padding:0;list-style:none;font-variant-numeric:tabular-nums}
.badge{display:inline-block;padding:1px 8px;border:1px solid;border-radius:99px;color:var(--soft);font-size:13px;font-weight:600}
.badge.critical{color:var(--paper);background:var(--alert);border-color:var(--alert)}
.badge.high{color:var(--alert);background:var(--alertback)}
.badge.medium{color:var(--open)}
section{margin-top:52px}
section>p{color:var(--soft);max-width:46em}
.legend{display:flex;align-items:center;gap:8px;margin:2px 0 8px;font-size:14px}
.key{width:14px;height:14px;border-radius:3px}
.key+.key,.key.open{margin-left:14px}
.key.fix{background:var(--fix)}
.key.open{background:repeating-linear-gradient(45deg,var(--open) 0 2px,var(--openback) 2px 5px)}
svg{display:block;width:100%;min-width:620px;height:auto;font-size:15px}
svg text{fill:var(--ink)}
svg .count{font-weight:700;font-variant-numeric:tabular-nums}
svg .track{fill:var(--wash)}
svg .fix{fill:var(--fix)}
svg .open{fill:url(#hatch)}
.hatchback{fill:var(--openback)}
.hatchline{fill:var(--open)}
.scroll{overflow-x:auto;margin-top:12px}
.scroll:focus-visible,a:focus-visible,summary:focus-visible{outline:2px solid var(--link);outline-offset:2px}
table{width:100%;border-collapse:collapse;font-size:15px}
th,td{padding:9px 14px 9px 0;border-top:1px solid var(--line);text-align:left;vertical-align:top}
th:last-child,td:last-child{padding-right:0}
thead th{border-top:0;border-bottom:1px solid var(--ink);color:var(--soft);font-size:13px;font-weight:600;white-space:nowrap}
tbody tr:first-child>*{border-top:0}
tbody th{min-width:11em;font-weight:600;overflow-wrap:anywhere}
small{display:block;color:var(--soft);font-size:13px;font-weight:400}
.v{font-variant-numeric:tabular-nums;overflow-wrap:anywhere}
.n{text-align:right;font-variant-numeric:tabular-nums}
td.n,th.n{padding-right:22px}
.to{font-weight:600}
.to small{font-weight:400}
.none{color:var(--soft);font-weight:400}
.where,.path,.ids{font-size:14px;overflow-wrap:anywhere}
.where{min-width:14em}
.where span{display:block}
.ids{color:var(--soft)}
.group th{padding-top:26px;padding-bottom:7px;border-top:0;font-size:16px}
.group .v{color:var(--soft);font-weight:400}
.findings tbody tr:nth-child(2)>*{border-top:1px solid var(--ink)}
.findings tbody tr:not(.group)>*{padding-top:6px;padding-bottom:6px}
.findings tbody th[scope=row]{white-space:nowrap;font-weight:500}
summary{color:var(--link);cursor:pointer}
a{color:var(--link);text-decoration-thickness:1px;text-underline-offset:3px}
.method{margin-bottom:72px;padding:24px 26px;border-radius:8px;background:var(--wash)}
.evidence{margin:0}
.evidence div{margin-top:8px}
.evidence dt{font-size:14px;font-weight:600}
.evidence dd{margin:0;color:var(--soft);font:13px/1.5 ui-monospace,SFMono-Regular,Menlo,Consolas,"DejaVu Sans Mono",monospace;overflow-wrap:anywhere}
@media (max-width:720px){header,main{padding-left:18px;padding-right:18px}header{padding-top:32px}h1{font-size:28px}
.tiles{grid-template-columns:repeat(2,1fr)}.tiles div{border-left:0;border-top:1px solid var(--line)}.tiles div:nth-child(-n+2){border-top:0}.tiles div:nth-child(even){border-left:1px solid var(--line)}}
@media print{:root{--paper:#fff;--ink:#000;--soft:#444}body{font-size:11pt}header,main{max-width:none;padding:0}section{margin-top:28px;break-inside:auto}tr,svg{break-inside:avoid}}
`
