import pytest
from osgeo import gdal, ogr

from gdalbridge.ogr.driver_path import driver_directory


@pytest.fixture(scope="session")
def driver_path(tmp_path_factory):
    """The value of GDAL_PYTHON_DRIVER_PATH for this Python, as a string."""
    with pytest.MonkeyPatch.context() as patch:
        patch.setenv("XDG_DATA_HOME", str(tmp_path_factory.mktemp("data-home")))
        patch.delenv("PYTHONPATH", raising=False)
        return str(driver_directory())


@pytest.fixture(scope="session")
def driver(driver_path):
    """The driver, in the GDAL of this process."""
    gdal.SetConfigOption("GDAL_PYTHON_DRIVER_PATH", driver_path)
    gdal.AllRegister()
    gdal.SetConfigOption("GDAL_PYTHON_DRIVER_PATH", None)
    found = gdal.GetDriverByName("RATZARR")
    yield found
    found.Deregister()


@pytest.fixture
def open_layer(driver):
    """A function that opens a table's layer, GDAL's errors being exceptions."""
    before = [module.GetUseExceptions() for module in (gdal, ogr)]
    datasets = []

    def opened(name, **options):
        given = [f"{key}={text}" for key, text in options.items()]
        datasets.append(gdal.OpenEx(str(name), gdal.OF_VECTOR, open_options=given))
        return datasets[-1].GetLayer(0)

    gdal.UseExceptions()
    ogr.UseExceptions()
    yield opened
    datasets.clear()
    # Old versions keep a stack of error handlers.
    for module, was in zip((ogr, gdal), reversed(before), strict=True):
        (module.UseExceptions if was else module.DontUseExceptions)()
