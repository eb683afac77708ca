# What is typed most. PYTHON may name another interpreter: make test PYTHON=.venv/bin/python
PYTHON ?= python
.PHONY: install export clean-notebooks lint test contents report site

install:  ## the library, and what changing it needs
	$(PYTHON) -m pip install --editable '.[dev]'

export:  ## notebooks to modules
	nbdev-export

clean-notebooks:  ## metadata out of notebooks
	nbdev-clean

lint:
	ruff check nbs tests docs setup.py

test:  ## library notebooks, experiments at their smallest, tests
	$(PYTHON) -m pytest

contents:  ## nbs/README.md, the index, the page of each chapter, and results shown on the pages of papers and experiments
	$(PYTHON) -c "from ps_nb.reproduction.contents import write_contents; write_contents()"
	$(PYTHON) -c "from ps_nb.reproduction.paper_pages import write_pages; write_pages()"

report:  ## results/README.md, and results shown on the pages of papers and experiments
	ps-nb report
	$(PYTHON) -c "from ps_nb.reproduction.paper_pages import write_pages; write_pages()"

site:  ## all pages and notebooks as a searchable site in site/; a broken link is an error
	$(PYTHON) -m mkdocs build --strict
