"""The page in a headless Chromium: what it shows, and how it looks."""

import shutil
from base64 import b64decode

import pytest
import torch
from report_runs import (
    LINES,
    distilled,
    run_with_weights,
    with_teacher,
    write_run,
)

from mmdiffkd.analysis.report import write_report

webdriver = pytest.importorskip('selenium.webdriver')
CHROMIUM, DRIVER = map(shutil.which, ('chromium', 'chromedriver'))
pytestmark = pytest.mark.skipif(
    not (CHROMIUM and DRIVER), reason='needs chromium and chromedriver'
)
#: A name that would like to be markup, and to end a script.
MARKUP = '<b>b</b></script><script>injected=1</script><img src=x onerror=injected=1>&amp;'  # noqa: E501
#: The same as a name of a file, which has no slash.
FILE = MARKUP.replace('/', '') + ' 图'


@pytest.fixture(scope='module')
def browser():
    options = webdriver.ChromeOptions()
    options.binary_location = CHROMIUM
    for flag in ('headless=new', 'no-sandbox', 'disable-dev-shm-usage'):
        options.add_argument(f'--{flag}')
    options.set_capability('goog:loggingPrefs', {'browser': 'ALL'})
    service = webdriver.ChromeService(DRIVER)
    with webdriver.Chrome(options, service) as driver:
        yield driver


def predict_always(checkpoint, label):
    states = torch.load(checkpoint)
    bias = states['state_dict']['head.fc.bias']
    bias.fill_(-99)[label] = 99
    torch.save(states, checkpoint)


@pytest.fixture(scope='module')
def page(tmp_path_factory):
    """The page of a distilled run and of one without a config."""
    root = tmp_path_factory.mktemp('page')
    config = with_teacher(root, distilled(root))
    classes = dict(classes=[MARKUP, '第二'])
    config.val_dataloader.dataset.metainfo = classes
    for number, image in enumerate(sorted((root / 'data/val').rglob('*.*'))):
        image.rename(image.with_name(f'{FILE}{number}{image.suffix}'))
    first, _ = run_with_weights(root, config, FILE)
    # The student takes all for the first class, the teacher for the second.
    predict_always(first.checkpoint, 0)
    predict_always(root / 'teacher.pth', 1)
    lines = [{**line, MARKUP: 0.5} for line in LINES[:4]]
    second = write_run(root / 'zweiter Lauf 蒸馏', lines, checkpoint=None)
    return write_report(
        [first.folder, second], root / 'page.html', split='val'
    )


def look(browser, page, width=1280, theme='light'):
    """Open the page at a width, in light or dark."""
    for command, arguments in (
        (
            'Emulation.setDeviceMetricsOverride',
            dict(width=width, height=900, deviceScaleFactor=1, mobile=False),
        ),
        (
            'Emulation.setEmulatedMedia',
            dict(features=[dict(name='prefers-color-scheme', value=theme)]),
        ),
    ):
        browser.execute_cdp_cmd(command, arguments)
    browser.get(page.as_uri())
    errors = [
        entry['message']
        for entry in browser.get_log('browser')
        if entry['level'] == 'SEVERE'
    ]
    assert errors == []


def plotted(browser, key):
    """The curves of a plot as Plotly has them."""
    return browser.execute_script(
        """
        const figures = [...document.querySelectorAll('figure')];
        const figure = figures.find(
          (each) => each.querySelector('figcaption').textContent === arguments[0]
        );
        return figure.querySelector('.plot').data.map((trace) => ({
          x: trace.x, y: trace.y, visible: trace.visible, name: trace.name,
        }));
        """,  # noqa: E501
        key,
    )


@pytest.mark.parametrize('width', [390, 1280])
@pytest.mark.parametrize('theme', ['light', 'dark'])
def test_it_fits(browser, page, width, theme):
    look(browser, page, width, theme)
    wide, back = browser.execute_script(
        """
        return [
          document.documentElement.scrollWidth,
          getComputedStyle(document.body).backgroundColor,
        ];
        """
    )
    assert wide <= width
    assert (
        back
        == {'light': 'rgb(255, 255, 255)', 'dark': 'rgb(20, 23, 27)'}[theme]
    )


def test_it_shows_what_was_logged(browser, page):
    look(browser, page)
    first, second = plotted(browser, 'loss')
    assert (first['x'], first['y']) == ([2, 4, 6, 8], [2.0, 1.5, 1.25, 1.0])
    assert (second['x'], second['y']) == ([2, 4], [2.0, 1.5])
    teacher, own, *_ = plotted(browser, 'accuracy/top1')
    assert (teacher['y'], own['y']) == ([90.0, 90.0], [40.0, 62.5])
    rows = browser.find_elements('css selector', '#results tbody tr')
    assert 'accuracy/top1 62.5 40' in [row.text for row in rows]


def test_it_shows_what_the_networks_do(browser, page):
    look(browser, page)
    student, teacher = (
        browser.execute_script(
            """
            const figures = [...document.querySelectorAll('.squares figure')];
            return figures[arguments[0]].querySelector('.plot').data[0].z;
            """,
            index,
        )
        for index in (0, 1)
    )
    assert student == [[100, 0], [100, 0]]
    assert teacher == [[0, 100], [0, 100]]
    for network, shares in enumerate((student, teacher)):
        # By class, in the order of the confusion.
        cells = {
            row.find_element('css selector', 'th').text: row.find_elements(
                'css selector', 'td'
            )[network].text
            for row in browser.find_elements(
                'css selector', '#classes tbody tr'
            )
        }
        diagonal = [f'{shares[i][i]:.1f}' for i in range(2)]
        assert [cells[MARKUP], cells['第二']] == diagonal
    assert browser.find_elements('css selector', '.panel img')
    # The stages of either, and CKA of each pair.
    stages = browser.execute_script(
        """
        const { z } = document.querySelector('#features .plot').data[0];
        return z.map((row) => row.length);
        """
    )
    assert stages == [3, 3, 3]
    pictured = browser.find_elements('css selector', '#disagreements .image')
    assert len(pictured) == 6
    assert all(each.text.startswith(FILE) for each in pictured)
    assert 'student: ' + MARKUP + ' (100 %)' in pictured[0].text
    # A click sorts by name, another one the other way round.
    heading = browser.find_element('css selector', '.sortable th')
    first = '#classes tbody th'
    orders = []
    for _ in range(2):
        heading.click()
        orders.append(browser.find_element('css selector', first).text)
    assert set(orders) == {MARKUP, '第二'}


def test_clicking_through_it(browser, page):
    look(browser, page)
    boxes = browser.find_elements('css selector', '.shown')
    boxes[1].click()
    assert [c['visible'] for c in plotted(browser, 'loss')] == [True, False]
    boxes[1].click()
    assert [c['visible'] for c in plotted(browser, 'loss')] == [True, True]

    browser.find_element('id', 'logarithmic').click()
    axis = "return document.querySelectorAll('.plot')[%d].layout.yaxis.type"
    titles = [
        each.text
        for each in browser.find_elements('css selector', 'figcaption')
    ]
    loss, metric = titles.index('loss'), titles.index('accuracy/top1')
    assert browser.execute_script(axis % loss) == 'log'
    assert browser.execute_script(axis % metric) == 'linear'

    browser.find_element('id', 'theme').click()
    theme = 'return document.documentElement.dataset.theme'
    assert browser.execute_script(theme) == 'dark'

    # Plots in what is closed are drawn once it is opened.
    closed = browser.find_elements('css selector', '#curves details')[-1]
    assert not closed.find_elements('css selector', '.plot svg')
    closed.find_element('css selector', 'summary').click()
    browser.execute_async_script('setTimeout(arguments[0], 300)')
    assert closed.find_elements('css selector', '.plot svg')


def test_texts_of_a_run_are_no_markup(browser, page):
    look(browser, page)
    assert browser.execute_script('return window.injected') is None
    assert not browser.find_elements(
        'css selector', 'h3 b, table b, table img'
    )
    names = [
        each.get_attribute('textContent')
        for each in browser.find_elements('css selector', '#classes tbody th')
    ]
    assert set(names) == {MARKUP, '第二'}
    assert MARKUP in [
        each.get_attribute('textContent')
        for each in browser.find_elements('css selector', 'figcaption')
    ]
    assert any(
        'There is no config.' in sentence.text
        for sentence in browser.find_elements('css selector', '.missing')
    )


def test_plots_are_as_wide_as_the_paper(browser, page):
    """At once: the page is printed before a plot draws itself again."""
    look(browser, page)
    widths = browser.execute_script(
        """
        document.body.style.width = '500px';
        dispatchEvent(new Event('beforeprint'));
        return [...document.querySelectorAll('.plot')].map((plot) => [
          plot.querySelector('.main-svg').getBoundingClientRect().width,
          plot.clientWidth,
        ]);
        """
    )
    browser.execute_script("dispatchEvent(new Event('afterprint'))")
    assert widths
    for drawn, place in widths:
        assert 0 < drawn <= place


def test_it_prints(browser, page):
    look(browser, page, theme='dark')
    sheet = browser.execute_cdp_cmd('Page.printToPDF', {})
    assert b64decode(sheet['data']).startswith(b'%PDF')
    # It is as before: dark, and closed what was closed.
    theme, closed = browser.execute_script(
        """
        return [
          document.documentElement.dataset.theme,
          document.querySelectorAll('#curves details:not([open])').length,
        ];
        """
    )
    assert (theme, closed) == ('dark', 1)
