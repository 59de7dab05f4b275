// Uses the report as a reader would, and posts what it finds to the page around it.
"use strict";
addEventListener('load', () => {
    const found = {}, root = document.documentElement;
    const marks = () => document.querySelectorAll('#scatter-0 .point').length;
    const cells = () => [...document.querySelectorAll('#kinds td')].map(c => c.textContent);
    const boxes = () => document.querySelectorAll('#viewer-images rect').length;
    const input = (id, value, kind) => {
        document.getElementById(id).value = value;
        document.getElementById(id).dispatchEvent(new Event(kind));
    };
    found.overflow = root.scrollWidth - root.clientWidth;
    found.width = root.clientWidth;
    found.tables = [...document.querySelectorAll('table')].filter(table => {
        const around = table.parentElement;  // all of it can be scrolled to
        return around.scrollWidth < table.offsetWidth ||
            getComputedStyle(around).overflowX !== 'auto';
    }).length;
    found.narrowest = Math.min(...[...document.querySelectorAll('td')].map(c => c.clientWidth));
    found.text = getComputedStyle(document.querySelector('#reliability .xtick text')).fill;
    found.drawn = [...document.querySelectorAll('.chart')]
        .map(c => c.querySelectorAll('.trace').length);
    found.pictures = [...document.querySelectorAll('image')]
        .filter(i => i.getAttribute('href')).length;
    found.legend = [...document.querySelectorAll('#scatter-0 .legendpoints path')]
        .map(mark => mark.getBBox().width);
    found.all = [marks(), cells()];
    input('threshold', 0.5, 'input');
    found.above = [marks(), cells(), document.getElementById('threshold-value').textContent];
    input('size', '2', 'change');
    found.large = [marks(), cells()];
    input('size', '', 'change');
    input('threshold', 0, 'input');
    document.querySelector('button[data-class="1"]').click();
    found.of_class = [marks(), cells(), boxes(), document.getElementById('class').value];
    const trace = document.getElementById('scatter-0').data.find(t => t.customdata.length);
    document.getElementById('scatter-0')
        .emit('plotly_click', {points: [{customdata: trace.customdata[0]}]});
    found.clicked = [document.querySelectorAll('#viewer-images figure').length,
        document.querySelectorAll('#viewer-images .chosen').length];
    parent.postMessage(found, '*');
});
