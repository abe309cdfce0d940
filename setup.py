from pathlib import Path

from setuptools import find_packages, setup

ROOT = Path(__file__).parent


def requirements(name: str) -> list[str]:
    """The lines of requirements/<name>.txt, without comments."""
    lines = (ROOT / 'requirements' / f'{name}.txt').read_text().splitlines()
    names = (line.partition('#')[0].strip() for line in lines)
    return [name for name in names if name]


def version() -> str:
    scope = {}
    exec((ROOT / 'mmdiffkd' / 'version.py').read_text(), scope)
    return scope['__version__']


extras = {name: requirements(name) for name in ('openmmlab', 'tests', 'docs')}
extras['all'] = sorted({line for lines in extras.values() for line in lines})

setup(
    name='mmdiffkd',
    version=version(),
    description='Knowledge distillation with denoising diffusion for '
    'OpenMMLab models',
    long_description=(ROOT / 'README.md').read_text(encoding='utf-8'),
    long_description_content_type='text/markdown',
    license='Apache-2.0',
    keywords='knowledge distillation, diffusion, computer vision, OpenMMLab',
    classifiers=[
        'Development Status :: 4 - Beta',
        'Programming Language :: Python :: 3',
        'Programming Language :: Python :: 3.10',
        'Programming Language :: Python :: 3.11',
        'Programming Language :: Python :: 3.12',
    ],
    python_requires='>=3.10',
    packages=find_packages(include=['mmdiffkd', 'mmdiffkd.*']),
    # .mim holds links to configs/, tools/ and model-index.yml; what is built
    # gets copies, and both `mmdiffkd::` and MIM find them there.
    package_data={
        'mmdiffkd': [
            '.mim/model-index.yml',
            '.mim/configs/**/*.py',
            '.mim/configs/**/*.yml',
            '.mim/configs/**/*.md',
            '.mim/tools/**/*.py',
            '.mim/tools/**/*.sh',
            'analysis/report/*.html',
            'analysis/report/*.css',
            'analysis/report/*.js',
        ]
    },
    install_requires=requirements('runtime'),
    extras_require=extras,
    zip_safe=False,
)
